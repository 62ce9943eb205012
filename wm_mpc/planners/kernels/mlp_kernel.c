/* Rollouts, costs and gradients of a residual MLP world model, and whole descent loops, without Python in between.

   The model is z' = z + Wo h_n + bo with h_i = SiLU(LayerNorm(W_i h_{i-1} + b_i)) and h_0 = [z, a]. With an object frame
   (object_frame.py) h_0 and the change are turned into the frame of the object and back. The cost is
   sum_t w_t sum_d c_d (z_td - g_d)^2 + action_weight mean(a^2) + smoothness_weight mean((a_t+1 - a_t)^2). Rows
   (plans) are independent, so a block of ROWS plans runs through its whole horizon, and through all of its iterations,
   while it is in the cache. Every matrix is stored once per direction with the vectorised index contiguous, padded to
   whole vectors and cut into panels of PANEL vectors, one after the other, so that weights are read in the order
   they lie in; padding is zero and stays zero. No -ffast-math: a NaN has to reach the comparisons, and a row's sums
   keep their order however many rows there are beside it. */

#define _GNU_SOURCE
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <string.h>

#ifdef WM_DOUBLE
typedef double real;
typedef int64_t whole;
#else
typedef float real;
typedef int32_t whole;
#endif

/* IN_REGISTER(v) keeps GCC from two choices that depend on the size of a tile: to read v from memory again in each use,
   which takes longer than the sums, and to split a fused multiplication and addition, which rounds differently. */
#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#define ROWS 8
#define TILE 4
#define PANEL 4
#define IN_REGISTER(v) __asm__("" : "+v"(v))
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#define ROWS 4
#define TILE 3
#define PANEL 6
#define IN_REGISTER(v) __asm__("" : "+x"(v))
#else
#define VECTOR_BYTES 16
#define ROWS 4
#define TILE 4
#define PANEL 4
#if defined(__aarch64__)
#define IN_REGISTER(v) __asm__("" : "+w"(v))
#else
#define IN_REGISTER(v)
#endif
#endif

typedef real vec __attribute__((vector_size(VECTOR_BYTES)));
typedef whole ivec __attribute__((vector_size(VECTOR_BYTES)));
enum { LANES = VECTOR_BYTES / sizeof(real), MAX_LAYERS = 8, MAX_HELPERS = 63 };
#define INLINE static inline __attribute__((always_inline))
#define LOAD(p) (*(const vec *)(p))
#define STORE(p, v) (*(vec *)(p) = (v))

typedef struct {
  int latent, action, width, layers, horizon, frame; /* frame: 1 where the model has an object frame */
} Shape;

typedef struct {
  const real *goal, *time_weights, *channel_weights;
  real action_weight, smoothness_weight;
} Objective;

typedef struct {
  const real *low, *high; /* (A,) */
  const real *noise;      /* (iterations, plans, T, A), standard normal, or NULL */
  real learning_rate, beta1, beta2, eps, action_noise, grad_clip;
  int adam, iterations, done; /* done: steps taken before this call */
} Descent;

/* Arguments of one call; a function reads those it names. Rows are plans or transitions. */
typedef struct {
  const Shape *shape;
  const real *weights;
  const Objective *objective;
  const Descent *descent;
  int rows;
  int hurry;  /* 1: helpers leave the rest of a descent to the caller, see share */
  int *steps; /* (rows,) iterations taken, 0 at first */
  const real *latent, *actions, *z, *a, *target, *dynamics_weights, *goal_weights;
  real *cost, *grad, *latents, *next, *grad_a, *grad_z, *x, *m, *v, *best, *best_cost, *first_cost;
} Call;

typedef struct {
  int D, A, W, L, T, Dp, Ap, Wp, frame, E, Ep; /* E: latent features, D and 4 of the object frame */
  const real *z_in, *a_in, *bias[MAX_LAYERS], *gamma[MAX_LAYERS], *beta[MAX_LAYERS], *up[MAX_LAYERS], *out, *out_bias;
  const real *out_back, *down[MAX_LAYERS], *z_back, *a_back;
  const real *see, *see_offset, *a_scale, *a_offset, *change, *see_back; /* object frame */
} Net;

typedef struct {
  real *z;     /* (T + 1, ROWS, Dp) predicted latents, the start first */
  real *a;     /* (T, ROWS, Ap) actions */
  real *ga;    /* (T, ROWS, Ap) their gradient */
  real *hat;   /* (T, L, ROWS, Wp) normalised pre-activations */
  real *slope; /* (T, L, ROWS, Wp) d h / d hat */
  real *rstd;  /* (T, L, ROWS) padded to LANES */
  real *x, *y; /* (ROWS, Wp) scratch */
  real *gz;    /* (ROWS, Dp) */
  real *seen;  /* (T, ROWS, Ep) relative pairs, centre and heading before turning */
  real *moved; /* (T, ROWS, Dp) changes in the object's frame */
  real *f, *fa, *gf; /* (ROWS, Ep), (ROWS, Ap), (ROWS, Dp) scratch */
  real *goal, *channel; /* (Dp,) */
} Work;

static int padded(int n) { return (n + LANES - 1) / LANES * LANES; }

/* Numbers of reals before the weights of `shape` end; `net` may be NULL. The order is the one Python packs. */
static long layout(const Shape *s, const real *base, Net *net) {
  Net n = {.D = s->latent, .A = s->action, .W = s->width, .L = s->layers, .T = s->horizon};
  n.frame = s->frame, n.E = n.D + (n.frame ? 4 : 0);
  n.Dp = padded(n.D), n.Ap = padded(n.A), n.Wp = padded(n.W), n.Ep = padded(n.E);
  long at = 0;
#define TAKE(field, count) (n.field = base + at, at += (long)(count))
  TAKE(z_in, n.E * n.Wp);
  TAKE(a_in, n.A * n.Wp);
  for (int l = 0; l < n.L; l++) {
    if (l) TAKE(up[l], n.W * n.Wp);
    TAKE(bias[l], n.Wp);
    TAKE(gamma[l], n.Wp);
    TAKE(beta[l], n.Wp);
  }
  TAKE(out, n.W * n.Dp);
  TAKE(out_bias, n.Dp);
  TAKE(out_back, n.D * n.Wp);
  for (int l = 1; l < n.L; l++) TAKE(down[l], n.W * n.Wp);
  TAKE(z_back, n.W * n.Ep);
  TAKE(a_back, n.W * n.Ap);
  if (n.frame) {
    TAKE(see, n.D * n.Ep);
    TAKE(see_offset, n.Ep);
    TAKE(a_scale, n.Ap);
    TAKE(a_offset, n.Ap);
    TAKE(change, n.Dp);
    TAKE(see_back, n.E * n.Dp);
  }
  if (net) *net = n;
  return at;
}

static long lay_work(const Net *n, real *base, Work *work) {
  Work w;
  long at = 0;
  const long steps = n->T;
#undef TAKE
#define TAKE(field, count) (w.field = base + at, at += (long)(count))
  TAKE(z, (steps + 1) * ROWS * n->Dp);
  TAKE(a, steps * ROWS * n->Ap);
  TAKE(ga, steps * ROWS * n->Ap);
  TAKE(hat, steps * n->L * ROWS * n->Wp);
  TAKE(slope, steps * n->L * ROWS * n->Wp);
  TAKE(rstd, steps * n->L * padded(ROWS));
  TAKE(x, ROWS * n->Wp);
  TAKE(y, ROWS * n->Wp);
  TAKE(gz, ROWS * n->Dp);
  if (n->frame) {
    TAKE(seen, steps * ROWS * n->Ep);
    TAKE(moved, steps * ROWS * n->Dp);
    TAKE(f, ROWS * n->Ep);
    TAKE(fa, ROWS * n->Ap);
    TAKE(gf, ROWS * n->Dp);
  }
  TAKE(goal, n->Dp);
  TAKE(channel, n->Dp);
  if (work) *work = w;
  return at;
}

long wm_weights(const Shape *shape) { return layout(shape, 0, 0); }
long wm_lanes(void) { return LANES; }
long wm_panel(void) { return PANEL * LANES; }
long wm_work(const Shape *shape) {
  Net net;
  layout(shape, 0, &net);
  return lay_work(&net, 0, 0);
}

/* c (R, V vectors) += a (R, K) m (K, ...) */
INLINE void tile(const int R, const int V, int K, const real *a, int lda, const real *m, int ldm, real *c, int ldc) {
  vec acc[ROWS][PANEL];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 8
    for (int v = 0; v < V; v++) acc[r][v] = LOAD(c + r * ldc + v * LANES);
  for (int k = 0; k < K; k++) {
    vec b[PANEL];
#pragma GCC unroll 8
    for (int v = 0; v < V; v++) {
      b[v] = LOAD(m + (long)k * ldm + v * LANES);
      IN_REGISTER(b[v]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      const real s = a[r * lda + k];
#pragma GCC unroll 8
      for (int v = 0; v < V; v++) {
        IN_REGISTER(acc[r][v]);
        acc[r][v] += b[v] * s;
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 8
    for (int v = 0; v < V; v++) STORE(c + r * ldc + v * LANES, acc[r][v]);
}

INLINE void panels(const int R, const int V, int K, const real *a, int lda, const real *m, int N, real *c, int ldc) {
  for (int j = 0; j < N; j += PANEL * LANES, m += (long)K * PANEL * LANES) {
    const int left = N - j, width = left < PANEL * LANES ? left : PANEL * LANES;
    int i = 0;
    for (; i + V * LANES <= width; i += V * LANES) tile(R, V, K, a, lda, m + i, width, c + j + i, ldc);
    for (; i < width; i += LANES) tile(R, 1, K, a, lda, m + i, width, c + j + i, ldc);
  }
}

/* c (rows, N) += a (rows, K) m (K, N), N whole vectors, rows <= ROWS */
static void multiply(int rows, int K, const real *a, int lda, const real *m, int N, real *c, int ldc) {
#if ROWS == 8
  if (rows > 6) panels(8, 2, K, a, lda, m, N, c, ldc);
  else if (rows > 4) panels(6, TILE, K, a, lda, m, N, c, ldc);
  else
#endif
  if (rows > 2) panels(4, TILE, K, a, lda, m, N, c, ldc);
  else if (rows == 2) panels(2, TILE, K, a, lda, m, N, c, ldc);
  else panels(1, PANEL, K, a, lda, m, N, c, ldc);
}

static void fill(int rows, const real *bias, int N, real *c) {
  for (int r = 0; r < rows; r++) memcpy(c + (long)r * N, bias, N * sizeof(real));
}

INLINE real total(vec v) {
  real s = 0;
#pragma GCC unroll 16
  for (int i = 0; i < LANES; i++) s += v[i];
  return s;
}

/* exp(-v) for the sigmoid; exact to about 2 units in the last place in single precision. */
INLINE vec exp_negative(vec v) {
#ifdef WM_DOUBLE
  vec e;
  for (int i = 0; i < LANES; i++) e[i] = exp(-v[i]);
  return e;
#else
  vec x = -v;
  const vec top = (vec){} + 87.0f, bottom = (vec){} - 87.0f;
  const ivec high = x > top, low = x < bottom; /* both false for NaN, which passes through */
  x = (vec)(((ivec)x & ~high) | ((ivec)top & high));
  x = (vec)(((ivec)x & ~low) | ((ivec)bottom & low));
  const vec magic = (vec){} + 12582912.0f; /* 1.5 * 2^23: adding it rounds to the nearest integer */
  const vec shifted = x * 1.44269504088896341f + magic;
  const vec n = shifted - magic;
  const vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
  vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const ivec power = ((ivec)shifted - (ivec)magic + 127) << 23;
  return p * (vec)power;
#endif
}

/* One row of hat = LayerNorm(x), h = SiLU(gamma hat + beta); keeps what the backward pass needs. */
static void activate(const Net *n, int l, const real *x, real *hat, real *slope, real *rstd, real *h) {
  const int N = n->Wp;
  vec sum = {};
  for (int i = 0; i < N; i += LANES) sum += LOAD(x + i);
  const real mean = total(sum) / n->W;
  vec square = {};
  for (int i = 0; i < N; i += LANES) {
    const vec d = LOAD(x + i) - mean;
    square += d * d;
  }
  const real variance = (total(square) - (N - n->W) * mean * mean) / n->W;
  const real scale = 1 / (real)sqrt((double)variance + 1e-5);
  *rstd = scale;
  for (int i = 0; i < N; i += LANES) {
    const vec g = LOAD(n->gamma[l] + i);
    const vec u = (LOAD(x + i) - mean) * scale;
    const vec y = u * g + LOAD(n->beta[l] + i);
    const vec s = (real)1 / ((real)1 + exp_negative(y));
    STORE(hat + i, u);
    STORE(slope + i, g * s * ((real)1 + y * ((real)1 - s)));
    STORE(h + i, y * s);
  }
}

/* One row: gradient at x from the gradient g at h, in place. */
static void deactivate(const Net *n, const real *hat, const real *slope, real rstd, real *g) {
  const int N = n->Wp;
  vec sum = {}, dot = {};
  for (int i = 0; i < N; i += LANES) {
    const vec u = LOAD(g + i) * LOAD(slope + i);
    STORE(g + i, u);
    sum += u;
    dot += u * LOAD(hat + i);
  }
  const real mean = total(sum) / n->W, along = total(dot) / n->W;
  for (int i = 0; i < N; i += LANES) STORE(g + i, (LOAD(g + i) - mean - LOAD(hat + i) * along) * rstd);
}

/* Pairs (x, y) turned by the heading (sign 1) or back (sign -1). */
INLINE void turn(int count, const real *from, const real *heading, real sign, real *to) {
  const real c = heading[0], s = sign * heading[1];
  for (int i = 0; i < count; i += 2) {
    const real x = from[i], y = from[i + 1];
    to[i] = c * x - s * y;
    to[i + 1] = s * x + c * y;
  }
}

/* Gradient g at pairs that were turned (sign as in turn), added at the heading. */
INLINE void turn_back(int count, const real *from, const real *g, real sign, real *heading) {
  for (int i = 0; i < count; i += 2) {
    heading[0] += g[i] * from[i] + g[i + 1] * from[i + 1];
    heading[1] += sign * (g[i + 1] * from[i] - g[i] * from[i + 1]);
  }
}

/* Unit heading of a row of `seen`; returns its length before. */
INLINE real head(const Net *n, const real *seen, real *heading) {
  const real x = seen[n->D + 2], y = seen[n->D + 3], length = (real)sqrt((double)(x * x + y * y));
  const real bound = length > (real)1e-6 ? length : (real)1e-6;
  heading[0] = x / bound, heading[1] = y / bound;
  return bound;
}

/* Action of a row as a displacement in the camera's frame. */
INLINE void displace(const Net *n, const real *a, real *to) {
  for (int i = 0; i < n->A; i++) to[i] = a[i] * n->a_scale[i] + n->a_offset[i];
}

/* Features w->f (rows, Ep) and w->fa (rows, Ap) in the object's frame. */
static void enter_frame(const Net *n, Work *w, int rows, int t, const real *z, const real *a) {
  real *seen = w->seen + (long)t * ROWS * n->Ep, heading[2];
  fill(rows, n->see_offset, n->Ep, seen);
  multiply(rows, n->D, z, n->Dp, n->see, n->Ep, seen, n->Ep);
  for (int r = 0; r < rows; r++) {
    const real *s = seen + (long)r * n->Ep;
    real *f = w->f + (long)r * n->Ep, *fa = w->fa + (long)r * n->Ap;
    head(n, s, heading);
    turn(n->D, s, heading, -1, f);
    f[n->D] = s[n->D], f[n->D + 1] = s[n->D + 1];
    f[n->D + 2] = heading[0], f[n->D + 3] = heading[1];
    displace(n, a + (long)r * n->Ap, fa);
    turn(n->A, fa, heading, -1, fa);
  }
}

/* z (rows, Dp) -> next (rows, Dp); slot t of the work keeps the activations. */
static void step_forward(const Net *n, Work *w, int rows, int t, const real *z, const real *a, real *next) {
  const real *f = z, *fa = a;
  if (n->frame) {
    enter_frame(n, w, rows, t, z, a);
    f = w->f, fa = w->fa;
  }
  fill(rows, n->bias[0], n->Wp, w->x);
  multiply(rows, n->A, fa, n->Ap, n->a_in, n->Wp, w->x, n->Wp);
  multiply(rows, n->E, f, n->Ep, n->z_in, n->Wp, w->x, n->Wp);
  for (int l = 0; l < n->L; l++) {
    const long slot = (long)t * n->L + l;
    if (l) {
      fill(rows, n->bias[l], n->Wp, w->x);
      multiply(rows, n->W, w->y, n->Wp, n->up[l], n->Wp, w->x, n->Wp);
    }
    for (int r = 0; r < rows; r++) {
      const long at = (slot * ROWS + r) * n->Wp;
      activate(n, l, w->x + (long)r * n->Wp, w->hat + at, w->slope + at, w->rstd + slot * padded(ROWS) + r,
               w->y + (long)r * n->Wp);
    }
  }
  if (n->frame) {
    real *moved = w->moved + (long)t * ROWS * n->Dp, heading[2];
    fill(rows, n->out_bias, n->Dp, moved);
    multiply(rows, n->W, w->y, n->Wp, n->out, n->Dp, moved, n->Dp);
    for (int r = 0; r < rows; r++) {
      const long at = (long)r * n->Dp;
      head(n, w->seen + ((long)t * ROWS + r) * n->Ep, heading);
      turn(n->D, moved + at, heading, 1, next + at);
      for (int i = 0; i < n->D; i++) next[at + i] = z[at + i] + n->change[i] * next[at + i];
    }
    return;
  }
  for (int r = 0; r < rows; r++)
    for (int i = 0; i < n->Dp; i += LANES)
      STORE(next + r * n->Dp + i, LOAD(z + r * n->Dp + i) + LOAD(n->out_bias + i));
  multiply(rows, n->W, w->y, n->Wp, n->out, n->Dp, next, n->Dp);
}

/* From w->gf, w->f and ga (gradients at what `moved`, enter_frame's f and fa were turned to or from) to gz and ga. */
static void leave_frame(const Net *n, Work *w, int rows, int t, const real *a, real *gz, real *ga, int states) {
  for (int r = 0; r < rows; r++) {
    const real *seen = w->seen + ((long)t * ROWS + r) * n->Ep, *moved = w->moved + ((long)t * ROWS + r) * n->Dp;
    real *g = w->f + (long)r * n->Ep, *own = ga + (long)r * n->Ap, *b = w->fa + (long)r * n->Ap;
    real heading[2], at[2] = {g[n->D + 2], g[n->D + 3]};
    const real length = head(n, seen, heading);
    turn_back(n->D, moved, w->gf + (long)r * n->Dp, 1, at);
    displace(n, a + (long)r * n->Ap, b);
    turn_back(n->A, b, own, -1, at);
    turn(n->A, own, heading, 1, own);
    for (int i = 0; i < n->A; i++) own[i] *= n->a_scale[i];
    if (!states) continue;
    turn_back(n->D, seen, g, -1, at);
    turn(n->D, g, heading, 1, g);
    const real along = at[0] * heading[0] + at[1] * heading[1];
    for (int i = 0; i < 2; i++) g[n->D + 2 + i] = (at[i] - along * heading[i]) / length;
  }
  if (states) multiply(rows, n->E, w->f, n->Ep, n->see_back, n->Dp, gz, n->Dp);
}

/* gz (rows, Dp) at the step's output becomes the one at its input (skipped when `states` is 0); ga is written. */
static void step_backward(const Net *n, Work *w, int rows, int t, const real *a, real *gz, real *ga, int states) {
  const real *change = gz;
  if (n->frame) {
    real heading[2];
    for (int r = 0; r < rows; r++) {
      const long at = (long)r * n->Dp;
      for (int i = 0; i < n->D; i++) w->gf[at + i] = gz[at + i] * n->change[i];
      head(n, w->seen + ((long)t * ROWS + r) * n->Ep, heading);
      turn(n->D, w->gf + at, heading, -1, w->f + at); /* as wide as gf until the network's input is reached */
    }
    change = w->f;
  }
  memset(w->x, 0, sizeof(real) * rows * n->Wp);
  multiply(rows, n->D, change, n->Dp, n->out_back, n->Wp, w->x, n->Wp);
  real *g = w->x, *other = w->y;
  for (int l = n->L - 1; l >= 0; l--) {
    const long slot = (long)t * n->L + l;
    for (int r = 0; r < rows; r++) {
      const long at = (slot * ROWS + r) * n->Wp;
      deactivate(n, w->hat + at, w->slope + at, w->rstd[slot * padded(ROWS) + r], g + (long)r * n->Wp);
    }
    if (l) {
      memset(other, 0, sizeof(real) * rows * n->Wp);
      multiply(rows, n->W, g, n->Wp, n->down[l], n->Wp, other, n->Wp);
      real *swap = g;
      g = other;
      other = swap;
    }
  }
  memset(ga, 0, sizeof(real) * rows * n->Ap);
  multiply(rows, n->W, g, n->Wp, n->a_back, n->Ap, ga, n->Ap);
  real *gf = gz;
  if (n->frame) {
    gf = w->f;
    memset(gf, 0, sizeof(real) * rows * n->Ep);
  }
  if (states || n->frame) multiply(rows, n->W, g, n->Wp, n->z_back, n->Ep, gf, n->Ep);
  if (n->frame) leave_frame(n, w, rows, t, a, gz, ga, states);
}

/* Cost of one row's actions alone; adds its gradient to ga when `grad`. */
static real action_cost(const Net *n, const Objective *o, const Work *w, int r, int grad) {
  const int T = n->T, A = n->A;
  const long stride = (long)ROWS * n->Ap;
  real cost = 0;
  if (o->action_weight != 0) {
    const real scale = o->action_weight / (T * A);
    for (int t = 0; t < T; t++)
      for (int i = 0; i < A; i++) {
        const long at = t * stride + r * n->Ap + i;
        cost += scale * w->a[at] * w->a[at];
        if (grad) w->ga[at] += 2 * scale * w->a[at];
      }
  }
  if (o->smoothness_weight != 0 && T > 1) {
    const real scale = o->smoothness_weight / ((T - 1) * A);
    for (int t = 0; t + 1 < T; t++)
      for (int i = 0; i < A; i++) {
        const long at = t * stride + r * n->Ap + i;
        const real d = w->a[at + stride] - w->a[at];
        cost += scale * d * d;
        if (grad) {
          w->ga[at] -= 2 * scale * d;
          w->ga[at + stride] += 2 * scale * d;
        }
      }
  }
  return cost;
}

/* Costs (rows,) of the actions in w->a, and their gradient in w->ga when `grad`. */
static void evaluate(const Net *n, const Objective *o, Work *w, int rows, real *cost, int grad) {
  const long size = (long)ROWS * n->Dp;
  vec sums[ROWS];
  for (int r = 0; r < rows; r++) sums[r] = (vec){};
  for (int t = 0; t < n->T; t++) {
    real *next = w->z + (t + 1) * size;
    /* Without a gradient the activations of one step are scratch. */
    step_forward(n, w, rows, grad ? t : 0, w->z + t * size, w->a + (long)t * ROWS * n->Ap, next);
    for (int r = 0; r < rows; r++)
      for (int i = 0; i < n->Dp; i += LANES) {
        const vec e = LOAD(next + r * n->Dp + i) - LOAD(w->goal + i);
        sums[r] += e * e * LOAD(w->channel + i) * o->time_weights[t];
      }
  }
  if (grad) {
    memset(w->gz, 0, sizeof(real) * rows * n->Dp);
    for (int t = n->T - 1; t >= 0; t--) {
      const real *z = w->z + (t + 1) * size;
      const real scale = 2 * o->time_weights[t];
      for (int r = 0; r < rows; r++)
        for (int i = 0; i < n->Dp; i += LANES) {
          const long at = r * n->Dp + i;
          STORE(w->gz + at, LOAD(w->gz + at) + (LOAD(z + at) - LOAD(w->goal + i)) * LOAD(w->channel + i) * scale);
        }
      step_backward(n, w, rows, t, w->a + (long)t * ROWS * n->Ap, w->gz, w->ga + (long)t * ROWS * n->Ap, t > 0);
    }
  }
  for (int r = 0; r < rows; r++) cost[r] = total(sums[r]) + action_cost(n, o, w, r, grad);
}

/* Between the callers' plans (T, A) and the block's (T, ROWS, Ap). */
static void load_plan(const Net *n, const real *plan, real *block, int r) {
  for (int t = 0; t < n->T; t++)
    memcpy(block + ((long)t * ROWS + r) * n->Ap, plan + (long)t * n->A, sizeof(real) * n->A);
}

static void save_plan(const Net *n, real *plan, const real *block, int r) {
  for (int t = 0; t < n->T; t++)
    memcpy(plan + (long)t * n->A, block + ((long)t * ROWS + r) * n->Ap, sizeof(real) * n->A);
}

static void prepare(const Call *c, real *work, Net *n, Work *w) {
  layout(c->shape, c->weights, n);
  const long size = lay_work(n, work, w);
  memset(work, 0, sizeof(real) * size);
  memcpy(w->goal, c->objective->goal, sizeof(real) * n->D);
  memcpy(w->channel, c->objective->channel_weights, sizeof(real) * n->D);
  if (c->latent)
    for (int r = 0; r < ROWS; r++) memcpy(w->z + (long)r * n->Dp, c->latent, sizeof(real) * n->D);
}

/* Helper threads, shared by all calls of the process. They are started when first needed, sleep on `posted` between
   calls and never end. A thread just created would wait for its turn behind whatever else runs on the machine; one that
   wakes up is preferred by the scheduler. */
typedef void Part(Call *call, int first, int last, real *work);
typedef struct {
  pthread_mutex_t owner, lock; /* owner: held by the call that is being shared; lock: guards the rest */
  pthread_cond_t posted, finished;
  int helpers, wanted, busy; /* threads that exist, that this call may use, that work on it */
  pthread_t ids[MAX_HELPERS];
  int core;                  /* of the thread that called them last */
  int next, size;            /* first row that nobody has taken yet, rows of a part */
  Part *part;
  Call *call;
  real *work; /* (wanted + 1, work_size) */
  long work_size;
} Pool;
#define NO_HELPERS {.owner = PTHREAD_MUTEX_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER, \
                    .posted = PTHREAD_COND_INITIALIZER, .finished = PTHREAD_COND_INITIALIZER, .core = -1}
static Pool pool = NO_HELPERS;

/* A forked child has the memory of the pool but none of its threads. */
static void forget_helpers(void) { pool = (Pool)NO_HELPERS; }

__attribute__((constructor)) static void watch_forks(void) { pthread_atfork(0, 0, forget_helpers); }

static int untaken(void) { return pool.call && pool.next < pool.call->rows; }

/* Works on parts until none is left; `lock` is held on entry and on return. */
static void take_parts(int thread) {
  while (untaken()) {
    const int first = pool.next, rest = pool.call->rows - first;
    const int last = first + (pool.size < rest ? pool.size : rest);
    pool.next = last;
    pthread_mutex_unlock(&pool.lock);
    pool.part(pool.call, first, last, pool.work + thread * pool.work_size);
    pthread_mutex_lock(&pool.lock);
  }
}

static void *help(void *number) {
  pthread_mutex_lock(&pool.lock);
  for (;;) {
    while ((intptr_t)number > pool.wanted || !untaken()) pthread_cond_wait(&pool.posted, &pool.lock);
    pool.busy++;
    take_parts((int)(intptr_t)number);
    if (--pool.busy == 0) pthread_cond_signal(&pool.finished);
  }
  return 0;
}

/* See to it that there are `wanted` helpers (fewer if the system refuses), on other cores than this thread's: woken by
   it, they would often be put on its core, to wait for it to finish. */
static void call_helpers(int wanted) {
  const int before = pool.helpers;
  pool.wanted = wanted < MAX_HELPERS ? wanted : MAX_HELPERS;
  for (; pool.helpers < pool.wanted; pool.helpers++)
    if (pthread_create(&pool.ids[pool.helpers], 0, help, (void *)(intptr_t)(pool.helpers + 1))) break;
#ifdef __linux__
  const int core = sched_getcpu();
  cpu_set_t others;
  if ((core == pool.core && pool.helpers == before) || sched_getaffinity(0, sizeof others, &others)) return;
  pool.core = core;
  CPU_CLR(core, &others); /* none left: the calls below fail and change nothing */
  for (int i = 0; i < pool.helpers; i++) pthread_setaffinity_np(pool.ids[i], sizeof others, &others);
#endif
}

/* Run `part` over the rows of a call in `threads` parts. The calling thread takes the first one, and any that no
   helper has begun by then, so it never waits for a thread that has yet to start; it takes over from helpers that lag
   behind, whose cores are busy with something else. A second call at the same time runs alone. */
static void share(Part *part, Call *call, int threads, real *work) {
  if (threads < 2 || pthread_mutex_trylock(&pool.owner)) {
    part(call, 0, call->rows, work);
    return;
  }
  pthread_mutex_lock(&pool.lock);
  call_helpers(threads - 1);
  pool.size = (call->rows + threads - 1) / threads;
  pool.next = 0, pool.part = part, pool.call = call;
  pool.work = work, pool.work_size = wm_work(call->shape);
  pthread_cond_broadcast(&pool.posted);
  take_parts(0);
  __atomic_store_n(&call->hurry, 1, __ATOMIC_RELAXED);
  while (pool.busy) pthread_cond_wait(&pool.finished, &pool.lock);
  pool.call = 0;
  pthread_mutex_unlock(&pool.lock);
  call->hurry = 0;
  for (int first = 0, last; call->steps && first < call->rows; first = last) {
    last = first + pool.size < call->rows ? first + pool.size : call->rows;
    if (call->steps[last - 1] < call->descent->iterations) part(call, first, last, work);
  }
  pthread_mutex_unlock(&pool.owner);
}

static void cost_part(Call *c, int begin, int end, real *work) {
  Net n;
  Work w;
  prepare(c, work, &n, &w);
  const long plan = (long)n.T * n.A;
  for (int first = begin; first < end; first += ROWS) {
    const int rows = end - first < ROWS ? end - first : ROWS;
    for (int r = 0; r < rows; r++) load_plan(&n, c->actions + (first + r) * plan, w.a, r);
    evaluate(&n, c->objective, &w, rows, c->cost + first, c->grad != 0);
    for (int r = 0; r < rows; r++) {
      if (c->grad) save_plan(&n, c->grad + (first + r) * plan, w.ga, r);
      if (c->latents)
        for (int t = 0; t < n.T; t++)
          memcpy(c->latents + ((first + r) * (long)n.T + t) * n.D, w.z + ((t + 1L) * ROWS + r) * n.Dp,
                 sizeof(real) * n.D);
    }
  }
}

static void transitions_part(Call *c, int begin, int end, real *work) {
  Net n;
  Work w;
  prepare(c, work, &n, &w);
  real *out = w.z + (long)ROWS * n.Dp;
  for (int first = begin; first < end; first += ROWS) {
    const int rows = end - first < ROWS ? end - first : ROWS;
    for (int r = 0; r < rows; r++) {
      memcpy(w.z + (long)r * n.Dp, c->z + (long)(first + r) * n.D, sizeof(real) * n.D);
      memcpy(w.a + (long)r * n.Ap, c->a + (long)(first + r) * n.A, sizeof(real) * n.A);
    }
    step_forward(&n, &w, rows, 0, w.z, w.a, out);
    for (int r = 0; r < rows; r++) {
      const long row = first + r;
      memcpy(c->next + row * n.D, out + (long)r * n.Dp, sizeof(real) * n.D);
      for (int d = 0; d < n.D; d++) {
        const real f = out[(long)r * n.Dp + d];
        w.gz[r * n.Dp + d] = 2 * w.channel[d] * (c->dynamics_weights[row] * (f - c->target[row * n.D + d]) +
                                                 c->goal_weights[row] * (f - w.goal[d]));
      }
    }
    step_backward(&n, &w, rows, 0, w.a, w.gz, w.ga, c->grad_z != 0);
    for (int r = 0; r < rows; r++) {
      memcpy(c->grad_a + (long)(first + r) * n.A, w.ga + (long)r * n.Ap, sizeof(real) * n.A);
      if (c->grad_z) memcpy(c->grad_z + (long)(first + r) * n.D, w.gz + (long)r * n.Dp, sizeof(real) * n.D);
    }
  }
}

/* One optimiser step of one plan; gradients that are not finite count as zero. */
static void update(const Net *n, const Descent *d, const real *noise, int step, real *x, real *g, real *m, real *v) {
  const int size = n->T * n->A;
  real square = 0;
  for (int i = 0; i < size; i++) {
    if (!isfinite(g[i])) g[i] = 0;
    square += g[i] * g[i];
  }
  if (d->grad_clip > 0 && square > d->grad_clip * d->grad_clip) {
    const real scale = d->grad_clip / (real)sqrt((double)square);
    for (int i = 0; i < size; i++) g[i] *= scale;
  }
  const double correction = sqrt(1 - pow(d->beta2, step));
  const real rate = d->adam ? (real)(d->learning_rate * correction / (1 - pow(d->beta1, step))) : d->learning_rate;
  const real eps = (real)(d->eps * correction);
  for (int i = 0; i < size; i++) {
    if (d->adam) {
      m[i] = d->beta1 * m[i] + (1 - d->beta1) * g[i];
      v[i] = d->beta2 * v[i] + (1 - d->beta2) * g[i] * g[i];
      x[i] -= rate * m[i] / ((real)sqrt(v[i]) + eps);
    } else {
      x[i] -= rate * g[i];
    }
    if (noise) x[i] += d->action_noise * noise[i];
  }
  for (int t = 0; t < n->T; t++)
    for (int i = 0; i < n->A; i++) {
      real *value = x + t * n->A + i;
      if (*value < d->low[i]) *value = d->low[i];
      if (*value > d->high[i]) *value = d->high[i];
    }
}

static void descend_part(Call *c, int begin, int end, real *work) {
  const Descent *d = c->descent;
  Net n;
  Work w;
  prepare(c, work, &n, &w);
  const long plan = (long)n.T * n.A;
  real cost[ROWS], grad[4096];
  for (int first = begin; first < end; first += ROWS) {
    const int rows = end - first < ROWS ? end - first : ROWS;
    for (int k = c->steps[first]; k < d->iterations; k++) {
      if (__atomic_load_n(&c->hurry, __ATOMIC_RELAXED)) return;
      for (int r = 0; r < rows; r++) load_plan(&n, c->x + (first + r) * plan, w.a, r);
      evaluate(&n, c->objective, &w, rows, cost, 1);
      for (int r = 0; r < rows; r++) {
        const long row = first + r, at = row * plan;
        if (k == 0 && d->done == 0) c->first_cost[row] = cost[r];
        if (cost[r] < c->best_cost[row]) {
          c->best_cost[row] = cost[r];
          memcpy(c->best + at, c->x + at, sizeof(real) * plan);
        }
        save_plan(&n, grad, w.ga, r);
        const real *noise = d->noise ? d->noise + (long)k * c->rows * plan + at : 0;
        c->steps[row] = k + 1;
        update(&n, d, noise, d->done + k + 1, c->x + at, grad, c->m + at, c->v + at);
      }
    }
  }
}

/* The calls. `work` has room for `threads` times wm_work numbers; the result does not depend on `threads`. */

/* cost (rows,) of actions (rows, T, A); grad (rows, T, A) and latents (rows, T, D) unless NULL. */
void wm_cost(Call *call, int threads, real *work) { share(cost_part, call, threads, work); }

/* Transitions of a lifted method. Row i: next = F(z_i, a_i) and, with the cotangent
   2 c (dynamics_i (next - target_i) + goal_i (next - goal)), the gradients at a_i and, unless NULL, at z_i. */
void wm_transitions(Call *call, int threads, real *work) { share(transitions_part, call, threads, work); }

/* Descend plans x (rows, T, A) with moments m, v; keep each plan's best iterate and the cost of the first one. */
void wm_descend(Call *call, int threads, real *work) { share(descend_part, call, threads, work); }
