/* signbit: run bit-packed binary neural networks on a CPU.
 *
 * Open a model from a file or from memory, open a session for one input shape, run it as often as you like. How to
 * build and link, a complete program, and every function's contract at length: docs/c-api.md.
 *
 * Threads: a model does not change once it is open and may be shared by many sessions and threads. A session belongs
 * to one caller at a time; sessions are independent of each other.
 * Errors: every function that can fail returns a status, and where it takes `error` writes a message there, cut to
 * `error_size` bytes and always terminated; pass NULL and 0 where no message is wanted. Nothing here throws or aborts.
 * NULL for a model or session is harmless: the answer is then 0, NULL or SIGNBIT_ERROR_ARGUMENT.
 * Strings are UTF-8 and end in a zero byte.
 */
#ifndef SIGNBIT_SIGNBIT_H
#define SIGNBIT_SIGNBIT_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define SIGNBIT_API __declspec(dllexport)
#else
#define SIGNBIT_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct signbit_model signbit_model;
typedef struct signbit_session signbit_session;

typedef enum signbit_status {
  SIGNBIT_OK = 0,
  SIGNBIT_ERROR_FORMAT = 1,      /* the file is damaged, truncated, of a newer version, or not a signbit file */
  SIGNBIT_ERROR_ARGUMENT = 2,    /* wrong shape, kind or value passed by the caller */
  SIGNBIT_ERROR_UNSUPPORTED = 3, /* an instruction set that this CPU or build lacks */
  SIGNBIT_ERROR_IO = 4,          /* the file cannot be opened or read */
  SIGNBIT_ERROR_MEMORY = 5,      /* the system gave no memory */
  SIGNBIT_ERROR_INTERNAL = 6     /* a mistake of the library's own */
} signbit_status;

typedef enum signbit_input_kind {
  SIGNBIT_INPUT_U8_NHWC = 0, /* pixels; normalised by the mean and std in the file */
  SIGNBIT_INPUT_F32_NCHW = 1 /* already normalised */
} signbit_input_kind;

/* Set every member: `signbit_session_options options = {0};` and then those that matter. */
typedef struct signbit_session_options {
  int32_t batch;   /* images in one run, 1 to 2^20 */
  int32_t height;  /* pixels, 1 to 2^20 */
  int32_t width;   /* pixels, 1 to 2^20 */
  int32_t threads; /* 1 to 1024 */
  const char* isa; /* "amx", "avx512_popcnt", "avx512", "avx2", "neon_dot", "neon", "scalar": the best set allowed;
                      NULL: the best there is */
  uint64_t memory_limit; /* most bytes that maps, tables, packed weights and the plan may take together; 0: no limit */
} signbit_session_options;

/* Version of the library, e.g. "0.1.0". */
SIGNBIT_API const char* signbit_version(void);

/* Instruction sets that this CPU and this build can run, best first, separated by commas. */
SIGNBIT_API const char* signbit_instruction_sets(void);

/* Open a model: the whole file is read and checked, its hash too. `open_memory` copies the bytes. On success `*model`
 * is the caller's, to be closed; on failure it is NULL. The model must outlive its sessions. */
SIGNBIT_API signbit_status signbit_model_open(const char* path, signbit_model** model, char* error,
                                              size_t error_size);
SIGNBIT_API signbit_status signbit_model_open_memory(const void* data, size_t size,
                                                     signbit_model** model, char* error,
                                                     size_t error_size);
/* Close a model once its sessions are closed. */
SIGNBIT_API void signbit_model_close(signbit_model* model);

/* The file's `__metadata__` object as JSON text; owned by the model. */
SIGNBIT_API const char* signbit_model_metadata(const signbit_model* model);
/* Channels of an input image, e.g. 3. */
SIGNBIT_API int32_t signbit_model_input_channels(const signbit_model* model);
/* 1 where the file knows how to normalise uint8 pixels. */
SIGNBIT_API int32_t signbit_model_accepts_pixels(const signbit_model* model);
/* Channels, height and width that the file was compiled for; other heights and widths may be opened.
 * SIGNBIT_ERROR_FORMAT where the file does not say. */
SIGNBIT_API signbit_status signbit_model_input_shape(const signbit_model* model, int32_t shape[3]);
/* Names of the classes, where the file holds them: how many (else 0), and one, owned by the model (NULL where
 * there is none). */
SIGNBIT_API int32_t signbit_model_class_count(const signbit_model* model);
SIGNBIT_API const char* signbit_model_class_name(const signbit_model* model, int32_t index);

/* Open a session: infers every shape, plans the memory, packs the weights for the kernels chosen, starts threads - 1
 * threads. All memory that runs need is taken here. On success `*session` is the caller's, to be closed; on failure it
 * is NULL. */
SIGNBIT_API signbit_status signbit_session_open(const signbit_model* model,
                                                const signbit_session_options* options,
                                                signbit_session** session, char* error,
                                                size_t error_size);
/* Close a session that is not running: ends its threads, gives its memory back. */
SIGNBIT_API void signbit_session_close(signbit_session* session);

/* The instruction set that the session's kernels use; owned by the library. */
SIGNBIT_API const char* signbit_session_isa(const signbit_session* session);
/* Bytes of working memory (the maps), and of packed weights. */
SIGNBIT_API size_t signbit_session_arena_bytes(const signbit_session* session);
SIGNBIT_API size_t signbit_session_weight_bytes(const signbit_session* session);

/* Outputs: how many, and of each its shape: `shape` receives `rank` (2 or 4) numbers, batch first.
 * SIGNBIT_ERROR_ARGUMENT where there is no output `index`. */
SIGNBIT_API int32_t signbit_session_output_count(const signbit_session* session);
SIGNBIT_API signbit_status signbit_session_output_shape(const signbit_session* session, int32_t index,
                                                        int64_t shape[4], int32_t* rank);

/* What an output's numbers are. The scale of integers is a power of two, which the file's metadata name:
 * "output_exponents", a JSON list of e, one an output; the number meant is integer * 2^e. */
typedef enum signbit_output_type {
  SIGNBIT_OUTPUT_F32 = 0,
  SIGNBIT_OUTPUT_I32 = 1
} signbit_output_type;
SIGNBIT_API signbit_status signbit_session_output_type(const signbit_session* session, int32_t index,
                                                       signbit_output_type* type);

/* Run once. `input` holds batch * height * width * channels elements of the kind given; `outputs[i]`
 * receives output i, contiguous in NC or NCHW order: float32 or, where that is its type, int32. Both are the caller's. A session that is running in
 * another thread refuses with SIGNBIT_ERROR_ARGUMENT. What outputs hold after an error is not defined. */
SIGNBIT_API signbit_status signbit_session_run(signbit_session* session, const void* input,
                                               signbit_input_kind kind, float* const* outputs,
                                               char* error, size_t error_size);

/* While on, a run fails with SIGNBIT_ERROR_ARGUMENT at the first layer that reads or gives NaN or infinity, and
 * names that layer and where. Slower: every real-valued map is read once more. From any thread: a run that has
 * begun goes on as it began. */
SIGNBIT_API void signbit_session_set_checking(signbit_session* session, int32_t on);

/* Per-step timings of the last run made while profiling was on, as JSON text owned by the session until the next
 * call of signbit_session_profile: a list of {"name", "op", "kernel", "isa", "shape", "layout", "ms", "bytes",
 * "macs_b1", "macs_q8"}; null while the session runs in another thread. Profiling is set as checking is. */
SIGNBIT_API void signbit_session_set_profiling(signbit_session* session, int32_t on);
SIGNBIT_API const char* signbit_session_profile(signbit_session* session);

/* Measure what this CPU can do at best, on the calling thread: best of several repeats of some milliseconds. `isa` as
 * in the options. `what` and its unit: "look_up" (paired look-ups of binary convolutions, 10^9 multiply-accumulates a
 * second), "dot" (8-bit dot products, the same), "word" and "tile" (counted words and matrix tiles, the same; 0 where
 * `isa` has none), "copy_l1", "copy_l2", "copy_l3", "copy_memory" (10^9 bytes a second, read and written, by a copy
 * that stays in that cache; "copy_l3" is 0 where the system names none), "l1_bytes", "l2_bytes", "l3_bytes" (sizes of these caches, usual ones, 0 for the third, where the system does not say).
 * SIGNBIT_ERROR_ARGUMENT for another `what`, SIGNBIT_ERROR_UNSUPPORTED for an `isa` that cannot be had. */
SIGNBIT_API signbit_status signbit_measure_peak(const char* isa, const char* what, double* value,
                                                char* error, size_t error_size);

#ifdef __cplusplus
}
#endif
#endif
