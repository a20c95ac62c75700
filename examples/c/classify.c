/* Classifies a picture: classify MODEL.signbit PICTURE.ppm [THREADS]
 *
 * The picture is a binary PPM (P6, 8 bits a channel). It is stretched to the size that the file was compiled for, by
 * bilinear interpolation between pixel centres; shrink a large photo with a better filter first. Prints the five best
 * classes and the time of a run. Exit status: 0, 1 where something is wrong with a file, 2 for a wrong command line.
 */
#define _POSIX_C_SOURCE 199309L /* clock_gettime */

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <signbit/signbit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TOP = 5, MAX_SIDE = 1 << 15 };

typedef struct picture {
  int height, width, channels; /* 3: RGB, 1: grey */
  unsigned char* pixels;       /* [height][width][channels] */
} picture;

/* Next number of a PPM header; comments run from # to the end of the line. -1 where there is none. */
static int read_number(FILE* file) {
  int c = fgetc(file), number = 0;
  while (isspace(c) || c == '#') {
    if (c == '#')
      while (c != '\n' && c != EOF) c = fgetc(file);
    c = fgetc(file);
  }
  if (!isdigit(c)) return -1;
  for (; isdigit(c); c = fgetc(file)) {
    if (number > MAX_SIDE) return -1;
    number = 10 * number + (c - '0');
  }
  return isspace(c) ? number : -1; /* one white space stands behind every number, the last one too */
}

/* 1, and the picture; or 0, and what is wrong with the file on stderr. */
static int read_ppm(const char* path, picture* p) {
  FILE* file = fopen(path, "rb");
  const char* wrong = NULL;
  size_t size = 0;
  if (!file) {
    fprintf(stderr, "classify: %s: %s\n", path, strerror(errno));
    return 0;
  }
  p->channels = 3;
  if (fgetc(file) != 'P' || fgetc(file) != '6') {
    wrong = "not a binary PPM (P6); convert it, e.g. with ImageMagick: convert photo.jpg -resize 224x224 photo.ppm";
  } else {
    p->width = read_number(file);
    p->height = read_number(file);
    if (p->width < 1 || p->height < 1 || p->width > MAX_SIDE || p->height > MAX_SIDE)
      wrong = "width and height must be 1 to 32768";
    else if (read_number(file) != 255)
      wrong = "only 8 bits a channel are read (a maximum of 255)";
  }
  if (!wrong) {
    size = (size_t)p->width * (size_t)p->height * 3;
    p->pixels = malloc(size);
    if (!p->pixels)
      wrong = "no memory for its pixels";
    else if (fread(p->pixels, 1, size, file) != size)
      wrong = "the file ends before its last pixel";
  }
  fclose(file);
  if (wrong) fprintf(stderr, "classify: %s: %s\n", path, wrong);
  return !wrong;
}

/* Grey as the training data have it: ITU-R BT.601 luma, rounded. */
static void make_grey(picture* p) {
  size_t i, count = (size_t)p->width * (size_t)p->height;
  for (i = 0; i < count; i++) {
    const unsigned char* rgb = p->pixels + 3 * i;
    p->pixels[i] = (unsigned char)((19595u * rgb[0] + 38470u * rgb[1] + 7471u * rgb[2] + 32768u) >> 16);
  }
  p->channels = 1;
}

static size_t offset_of(const picture* p, int y, int x, int c) {
  return ((size_t)y * (size_t)p->width + (size_t)x) * (size_t)p->channels + (size_t)c;
}

/* Where output position i of `to` reads an axis of `from` pixels: between `first` and `second`, `share` of the latter. */
static void find_sources(int i, int from, int to, int* first, int* second, double* share) {
  const double at = (i + 0.5) * from / to - 0.5;
  *first = at < 0.0 ? 0 : (int)at;
  *second = *first + 1 < from ? *first + 1 : *first;
  *share = at < 0.0 ? 0.0 : at - *first;
}

/* `to->pixels` is allocated by the caller. A picture that has the size already is copied as it is. */
static void stretch(const picture* from, picture* to) {
  int y, x, c, top, bottom, left, right;
  double down, across;
  for (y = 0; y < to->height; y++) {
    find_sources(y, from->height, to->height, &top, &bottom, &down);
    for (x = 0; x < to->width; x++) {
      find_sources(x, from->width, to->width, &left, &right, &across);
      for (c = 0; c < to->channels; c++) {
        const double above = from->pixels[offset_of(from, top, left, c)] * (1.0 - across) +
                             from->pixels[offset_of(from, top, right, c)] * across;
        const double below = from->pixels[offset_of(from, bottom, left, c)] * (1.0 - across) +
                             from->pixels[offset_of(from, bottom, right, c)] * across;
        to->pixels[offset_of(to, y, x, c)] = (unsigned char)(above * (1.0 - down) + below * down + 0.5);
      }
    }
  }
}

static void print_best(const signbit_model* model, float* logits, int64_t classes) {
  double sum = 0.0, largest = logits[0];
  int64_t i;
  int rank;
  for (i = 1; i < classes; i++) largest = logits[i] > largest ? logits[i] : largest;
  for (i = 0; i < classes; i++) sum += exp(logits[i] - largest);
  for (rank = 0; rank < TOP && rank < classes; rank++) {
    int64_t best = 0;
    const char* name;
    for (i = 1; i < classes; i++) best = logits[i] > logits[best] ? i : best;
    name = signbit_model_class_name(model, (int32_t)best);
    printf("%5.1f %%  %d  %s\n", 100.0 * exp(logits[best] - largest) / sum, (int)best, name ? name : "");
    logits[best] = -HUGE_VALF;
  }
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Runs the picture, which has the session's size; 1 where all went well. */
static int classify(const signbit_model* model, signbit_session* session, const picture* image, const char* path) {
  char error[512];
  int64_t shape[4];
  int32_t rank = 0, round;
  float *logits, *outputs[1];
  double start = 0.0;
  signbit_status status = SIGNBIT_OK;
  if (signbit_session_output_count(session) != 1 ||
      signbit_session_output_shape(session, 0, shape, &rank) != SIGNBIT_OK || rank != 2) {
    fprintf(stderr, "classify: %s: the network does not end in one vector of classes\n", path);
    return 0;
  }
  logits = malloc((size_t)shape[1] * sizeof *logits);
  if (!logits) {
    fprintf(stderr, "classify: no memory for %d classes\n", (int)shape[1]);
    return 0;
  }
  outputs[0] = logits;
  for (round = 0; round < 2 && status == SIGNBIT_OK; round++) { /* the first run warms the caches up */
    start = seconds();
    status = signbit_session_run(session, image->pixels, SIGNBIT_INPUT_U8_NHWC, outputs, error, sizeof error);
  }
  if (status == SIGNBIT_OK) {
    const double taken = seconds() - start;
    print_best(model, logits, shape[1]);
    printf("%.3f ms, %dx%d pixels, %s\n", 1000.0 * taken, image->height, image->width, signbit_session_isa(session));
  } else {
    fprintf(stderr, "classify: %s: %s\n", path, error);
  }
  free(logits);
  return status == SIGNBIT_OK;
}

/* Opens the model and a session for its own size, and brings the picture to that size. */
static int run(const char* model_path, const char* picture_path, int threads) {
  char error[512];
  signbit_model* model = NULL;
  signbit_session* session = NULL;
  signbit_session_options options = {0};
  picture from = {0}, to = {0};
  int32_t shape[3] = {0, 0, 0};
  int good = 0;
  const signbit_status opened = signbit_model_open(model_path, &model, error, sizeof error);
  if (opened == SIGNBIT_ERROR_IO) { /* these messages name the path themselves */
    fprintf(stderr, "classify: %s\n", error);
  } else if (opened != SIGNBIT_OK) {
    fprintf(stderr, "classify: %s: %s\n", model_path, error);
  } else if (signbit_model_input_shape(model, shape) != SIGNBIT_OK) {
    fprintf(stderr, "classify: %s: the file does not say what size it was compiled for\n", model_path);
  } else if (!signbit_model_accepts_pixels(model) || (shape[0] != 1 && shape[0] != 3)) {
    fprintf(stderr, "classify: %s: the network does not read pictures; compile it with preprocessing\n", model_path);
  } else if (read_ppm(picture_path, &from)) {
    to.channels = shape[0];
    to.height = shape[1];
    to.width = shape[2];
    to.pixels = malloc((size_t)to.channels * (size_t)to.height * (size_t)to.width);
    options.batch = 1;
    options.height = to.height;
    options.width = to.width;
    options.threads = threads;
    if (!to.pixels) {
      fprintf(stderr, "classify: no memory for %dx%d pixels\n", to.height, to.width);
    } else if (signbit_session_open(model, &options, &session, error, sizeof error) != SIGNBIT_OK) {
      fprintf(stderr, "classify: %s: %s\n", model_path, error);
    } else {
      if (to.channels == 1) make_grey(&from);
      stretch(&from, &to);
      good = classify(model, session, &to, model_path);
    }
  }
  free(from.pixels);
  free(to.pixels);
  signbit_session_close(session);
  signbit_model_close(model);
  return good;
}

int main(int argc, char** argv) {
  const int threads = argc == 4 ? atoi(argv[3]) : 1;
  if ((argc != 3 && argc != 4) || threads < 1) {
    fprintf(stderr, "usage: classify MODEL.signbit PICTURE.ppm [THREADS]\n");
    return 2;
  }
  return run(argv[1], argv[2], threads) ? 0 : 1;
}
