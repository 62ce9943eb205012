"""Where ``wm_mpc.models.decoder`` used to lie; scripts that people wrote import it from here."""

from wm_mpc.models.decoder import Decoder

__all__ = ["Decoder"]
