"""Settings that every test shares."""

import torch

# Small tensors gain nothing from a second thread, and lose a lot on a busy machine.
torch.set_num_threads(1)
