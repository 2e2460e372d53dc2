/*
 * libblissffi: features, bot scores and decisions inside a web server's workers.
 *
 * Rules that hold for every function:
 *
 * - A handle belongs to the thread that opened it, and after a fork to the same thread of parent and of child, each
 *   for itself. Another thread gets BLISS_ERROR_THREAD. Functions without a handle may be called from any thread.
 * - NULL where a pointer is needed returns BLISS_ERROR_NULL (0 where a count is returned); nothing is done.
 *   A pointer that is not NULL must be valid for what the function does with it: libblissffi cannot check that.
 * - Text is a pointer and a length in bytes; it need not end in NUL, neither in what you give nor in what you get.
 *   A length of 0 may come with a NULL pointer.
 * - What a function returns: BLISS_OK; a number above 0 where a request cannot be answered now (unscored, and why); a
 *   number below 0 for a mistake in the call or a failure. bliss_last_error says it in words.
 * - No function ends the process, unwinds, or raises a signal. If there is a bug in the library itself
 *   (a panic), the call returns BLISS_ERROR_PANIC, and so does every later one with this handle except bliss_close.
 * - After bliss_open only the functions named bliss_..._register allocate memory; the others do not, even after a new
 *   publication.
 * - Structs begin with their size: set it to sizeof the struct before the call.
 *   A library older or newer than the header you compiled with then still knows which fields are yours.
 */


#ifndef BLISS_FFI_H
#define BLISS_FFI_H

/* Made by cbindgen from bliss-ffi/src; do not edit. See cbindgen.toml. */

#include <stddef.h>
#include <stdint.h>

// Version of the binary interface. It changes when a program compiled against an older header no longer works.
#define BLISS_ABI_VERSION 1

// How many bytes are enough for every pass and the NUL behind it.
#define BLISS_PASS_BYTES 64

// What became of a call.
//
// Above 0: the request is unscored, or has no features; other numbers than these may be added and mean the same.
// Below 0: the call was wrong, or failed.
enum bliss_result_e
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Done.
    BLISS_OK = 0,
    // Nothing was published yet, or nothing can be read.
    BLISS_NO_SNAPSHOT = 1,
    // No models were published yet.
    BLISS_NO_MODELS = 2,
    // The request's route, and the default one, have no active model.
    BLISS_NO_ACTIVE_MODEL = 3,
    // The active model has an input that neither the features nor the caller provide.
    BLISS_MISSING_INPUT = 4,
    // The published features are damaged or of another version.
    BLISS_BAD_SNAPSHOT = 5,
    // The published models are damaged or of another version.
    BLISS_BAD_MODELS = 6,
    // The model's result is not a probability.
    BLISS_NO_PROBABILITY = 7,
    // The daemon has given no sign of life for longer than its configuration allows (`publish.max_heartbeat_age`).
    BLISS_OLD_SNAPSHOT = 8,
    // The row of a dimension that the model uses is stale, and the dimension has `on_stale = "unscored"`.
    BLISS_STALE_DIMENSION = 9,
    // The model cannot be explained: it was published without the weights of its leaves.
    BLISS_NO_LEAF_WEIGHTS = 32,
    // The model cannot be explained: it has too many inputs or too large trees for the memory that explanations have.
    BLISS_TOO_LARGE_TO_EXPLAIN = 33,
    // No model of this name is published.
    BLISS_NO_SUCH_MODEL = 34,
    // A pointer that must not be NULL is.
    BLISS_ERROR_NULL = -1,
    // An id, a name, a number or a length is not valid for this function.
    BLISS_ERROR_ARGUMENT = -2,
    // The size that a struct begins with is neither this version's nor a known earlier one's.
    BLISS_ERROR_SIZE = -3,
    // The handle belongs to another thread.
    BLISS_ERROR_THREAD = -4,
    // Files in the directory cannot be used.
    BLISS_ERROR_OPEN = -5,
    // No more names can be registered.
    BLISS_ERROR_FULL = -6,
    // A bug in the library was caught; close the handle and open another one.
    BLISS_ERROR_PANIC = -7,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum bliss_result_e bliss_result_e;
#else
typedef int32_t bliss_result_e;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How a dimension answered.
enum bliss_status_e
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint8_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Not asked: no model of the route uses it.
    BLISS_STATUS_UNUSED = 0,
    // A row, and young enough.
    BLISS_STATUS_FRESH = 1,
    // A row, but older than the dimension's `max_age`; its values are used unless its `on_stale` says otherwise.
    BLISS_STATUS_STALE = 2,
    // No row; the default values are used.
    BLISS_STATUS_MISSING = 3,
    // The request lacks an attribute of the key, or it does not fit its kind; the default values are used.
    BLISS_STATUS_ABSENT = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum bliss_status_e bliss_status_e;
#else
typedef uint8_t bliss_status_e;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What kind of value a bliss_value_t holds.
enum bliss_value_e
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Text, as in bliss_request_set_text.
    BLISS_VALUE_TEXT = 0,
    // The bytes themselves, as in bliss_request_set_binary.
    BLISS_VALUE_BINARY = 1,
    // A number.
    BLISS_VALUE_U64 = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum bliss_value_e bliss_value_e;
#else
typedef uint32_t bliss_value_e;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What the web server is to do with a request.
enum bliss_action_e
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Serve it.
    BLISS_ACTION_ALLOW = 0,
    // Serve it, and log that the rule holds.
    BLISS_ACTION_OBSERVE = 1,
    // Serve it, and tell the application by a header.
    BLISS_ACTION_TAG = 2,
    // Count it against a limit, and answer with the status beyond that.
    BLISS_ACTION_RATE_LIMIT_KEY = 3,
    // Hand it to what tells people from programs.
    BLISS_ACTION_CHALLENGE = 4,
    // Answer with the status.
    BLISS_ACTION_BLOCK = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum bliss_action_e bliss_action_e;
#else
typedef uint32_t bliss_action_e;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Why no policy was asked, so that everything is allowed.
enum bliss_no_policy_e
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // A policy was asked.
    BLISS_POLICY_ASKED = 0,
    // None was published yet.
    BLISS_POLICY_NOT_PUBLISHED = 1,
    // What is published is damaged, of another version, or cannot be read.
    BLISS_POLICY_BAD = 2,
    // The daemon has given no sign of life for longer than its configuration allows (`publish.max_heartbeat_age`).
    BLISS_POLICY_OLD = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum bliss_no_policy_e bliss_no_policy_e;
#else
typedef uint32_t bliss_no_policy_e;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// A handle: what one thread needs to look up features and score requests.
typedef struct bliss_t bliss_t;

// How a directory is opened. All fields but the size may be 0, which means the default.
typedef struct {
    // sizeof(bliss_options_t).
    size_t size;
    // Address space in bytes that is reserved for each of the published copies, six in all; default 16 GiB.
    // No memory is reserved by this. A larger publication is remapped when it grows.
    uint64_t max_size_bytes;
} bliss_options_t;

// Some bytes of UTF-8; no NUL need follow. NULL and 0 where there is no text.
typedef struct {
    // Where it begins.
    const char *data;
    // How many bytes it has.
    size_t len;
} bliss_text_t;

// What is known of one request.
//
// Its texts may be read until the next call with the handle; `reason` as long as the library is loaded.
typedef struct {
    // sizeof(bliss_answer_t), set before the call.
    size_t size;
    // BLISS_OK if there is a score, else why there is none: the same number that bliss_score returns.
    int32_t result;
    // 1 is certainly automated, 99 certainly human; 0 if there is no score.
    uint32_t score;
    // Probability that the request is automated; NaN if there is no score.
    double bot_probability;
    // Generation of the features that were used; 0 if there are none.
    uint64_t features_generation;
    // Generation of the models that were used; 0 if there are none.
    uint64_t models_generation;
    // The model's index in the publication; 0 if there is no score.
    uint32_t model_index;
    // Dimensions that answered with a row young enough.
    uint32_t fresh;
    // Dimensions that answered with a row too old.
    uint32_t stale;
    // Dimensions that have no row; default values were used.
    uint32_t missing;
    // Dimensions for which the request lacks an attribute; default values were used.
    uint32_t absent;
    // How many times models were bound with this handle, modulo 2^32. While it stays the same, so do the models'
    // indexes and names; callers who keep copies of names renew them when it changes.
    uint32_t model_binding_count;
    // Name of the model.
    bliss_text_t model_name;
    // Version of the model, as the operator calls it.
    bliss_text_t model_version;
    // Why there is no score, in a few words that stay the same between versions.
    bliss_text_t reason;
    // With BLISS_MISSING_INPUT, the name of the first input that is missing.
    bliss_text_t missing_input;
} bliss_answer_t;

// What is to be done with a request, and which rule says so.
//
// Its texts may be read until the next call with the handle; `no_policy_reason` as long as the library is loaded. A struct of
// zeros says that the request is allowed.
typedef struct {
    // sizeof(bliss_decision_t), set before the call.
    size_t size;
    // What to do, as bliss_action_e.
    uint32_t action;
    // The status to answer with; 0: none.
    uint32_t status;
    // What the first simulated rule would have done, as bliss_action_e; of no meaning where there is no `simulated_rule`.
    uint32_t simulated_action;
    // Why no policy was asked, as bliss_no_policy_e.
    uint32_t no_policy;
    // Generation of the policies that were used; 0 if there are none.
    uint64_t policies_generation;
    // How many features and values that policies ask for are there neither by the published features nor by what is registered
    // with this handle, at most 64. No condition on them holds.
    uint32_t unbound_count;
    // Whether the request brought a pass (`pass` of bliss_http_t) that holds: 1: it did; 0: it brought none, or one that does not
    // hold; -1: that is not told, or cannot be checked since no features can be read.
    int32_t challenge_passed;
    // The rule that says so: its name, "exception", "default", "unscored" or "off". Never empty.
    bliss_text_t rule;
    // The first simulated rule that would have answered before it.
    bliss_text_t simulated_rule;
    // The exception that answered.
    bliss_text_t exception;
    // The policy that was asked.
    bliss_text_t policy;
    // Name of a header to add: to the request to the application with BLISS_ACTION_TAG, else to the answer.
    bliss_text_t header_name;
    // Its value.
    bliss_text_t header_value;
    // Why no policy was asked, in a few words that stay the same between versions.
    bliss_text_t no_policy_reason;
    // The request's id: what bliss_request_set_id said, or else 32 hexadecimal digits that are made for it.
    bliss_text_t request_id;
} bliss_decision_t;

// What a server knows of a request, as nginx's variables have it.
//
// A text whose data is NULL is not told: models see NaN where they take it, so that one model serves servers that tell much
// and little. A text with a length of 0, or "-", says that the request has none.
typedef struct {
    // sizeof(bliss_http_t); zero the rest before you fill it in.
    size_t size;
    // The client's address as text. Not used where `ip_bytes` is told.
    bliss_text_t ip;
    // The client's address as 4 or 16 bytes in network order: `$binary_remote_addr`.
    bliss_text_t ip_bytes;
    // `$request_method`.
    bliss_text_t method;
    // The request's target with its query: `$request_uri`.
    bliss_text_t target;
    // `http` or `https`.
    bliss_text_t scheme;
    // `$host`.
    bliss_text_t host;
    // `User-Agent`.
    bliss_text_t user_agent;
    // `Referer`.
    bliss_text_t referrer;
    // `Accept`.
    bliss_text_t accept;
    // `Accept-Language`.
    bliss_text_t accept_language;
    // `Accept-Encoding`.
    bliss_text_t accept_encoding;
    // `Sec-Fetch-Site`.
    bliss_text_t sec_fetch_site;
    // `Sec-Fetch-Mode`.
    bliss_text_t sec_fetch_mode;
    // `Sec-Fetch-Dest`.
    bliss_text_t sec_fetch_dest;
    // `Sec-CH-UA`.
    bliss_text_t sec_ch_ua;
    // `Sec-CH-UA-Mobile`.
    bliss_text_t sec_ch_ua_mobile;
    // `Sec-CH-UA-Platform`.
    bliss_text_t sec_ch_ua_platform;
    // The pass that the client brings, which bliss_pass made: the value of the cookie that it was set as.
    bliss_text_t pass;
} bliss_http_t;

// The result of a shadow model for one request: a model that is evaluated beside the active one and decides nothing.
//
// Its texts may be read until the next call with the handle; `reason` as long as the library is loaded.
typedef struct {
    // sizeof(bliss_shadow_t), set before the call.
    size_t size;
    // BLISS_OK if there is a score, else why there is none, as bliss_result_e.
    int32_t result;
    // 1 is certainly automated, 99 certainly human; 0 if there is no score.
    uint32_t score;
    // Probability that the request is automated; NaN if there is no score.
    double bot_probability;
    // The model's index in the publication.
    uint32_t model_index;
    // Is 0.
    uint32_t reserved;
    // Name of the model.
    bliss_text_t model_name;
    // Version of the model, as the operator calls it.
    bliss_text_t model_version;
    // Why there is no score, in a few words that stay the same between versions.
    bliss_text_t reason;
    // With BLISS_MISSING_INPUT, the name of the first input that is missing.
    bliss_text_t missing_input;
} bliss_shadow_t;

// What a model's answer for one request comes from.
//
// The answer is the model's own for the class of bots: log-odds; that class's sum where there are several classes; or the
// probability itself where the model answers with that. It is the sum of `expected` and all contributions.
//
// Its texts may be read until the next call with the handle.
typedef struct {
    // sizeof(bliss_explanation_t), set before the call.
    size_t size;
    // 1 is certainly automated, 99 certainly human.
    uint32_t score;
    // The score of a request of which nothing is known.
    uint32_t expected_score;
    // Probability that the request is automated.
    double bot_probability;
    // The model's answer for the class of bots: the higher, the more likely the request is automated.
    double answer;
    // The answer for a request of which nothing is known: the mean over the training data.
    double expected;
    // Generation of the features that were used.
    uint64_t features_generation;
    // Generation of the models that were used.
    uint64_t models_generation;
    // Inputs of the model: as many contributions as bliss_contribution_get has.
    size_t input_count;
    // The model's index in the publication.
    uint32_t model_index;
    // How many times models were bound with this handle, modulo 2^32; see bliss_answer_t.
    uint32_t model_binding_count;
    // Name of the model.
    bliss_text_t model_name;
    // Version of the model, as the operator calls it.
    bliss_text_t model_version;
} bliss_explanation_t;

// What one input contributes to an answer. A model calls the input `GROUP.NAME`.
//
// Its texts may be read until the next call that looks up, scores, explains or maintains.
typedef struct {
    // sizeof(bliss_contribution_t), set before the call.
    size_t size;
    // The dimension that the input is a feature of; `request` for what the request says by itself.
    bliss_text_t group;
    // The input's name within the group.
    bliss_text_t name;
    // Its part of the answer (SHAP value); above 0 where it makes a bot more likely.
    double contribution;
    // What that makes of the score; below 0 where it makes a bot more likely. All points together are the way from
    // `expected_score` to `score`; where contributions cancel each other out, by how much the score changes there.
    double points;
    // The input's value; NaN where a number is not told, and where it is a category.
    float value;
    // 1 where it is a category, else 0.
    uint32_t is_category;
    // CatBoost's hash of the category; 0 where it is a number.
    uint32_t category_hash;
    // How its dimension answered, as bliss_status_e; BLISS_STATUS_UNUSED for what the request says by itself.
    uint32_t status;
    // The input's number in the model.
    uint32_t input_index;
    // Is 0.
    uint32_t reserved;
} bliss_contribution_t;

// What a lookup found. The arrays are the handle's, and may be read until the next call with it.
typedef struct {
    // sizeof(bliss_features_t), set before the call.
    size_t size;
    // Generation of the features.
    uint64_t generation;
    // The features of all dimensions in the order of the schema; a category is the bit pattern of its hash.
    const float *values;
    // How many there are.
    size_t value_count;
    // How each dimension answered, as bliss_status_e, in the order of the schema.
    const uint8_t *statuses;
    // How many dimensions there are.
    size_t dimension_count;
} bliss_features_t;

// The value of an attribute.
typedef struct {
    // A bliss_value_e.
    uint32_t kind;
    // Is 0.
    uint32_t reserved;
    // The number, for BLISS_VALUE_U64.
    uint64_t number;
    // The bytes, for the others.
    const uint8_t *data;
    // How many bytes there are.
    size_t len;
} bliss_value_t;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The binary interface's version of the library that is loaded: compare it with BLISS_ABI_VERSION of the header.
//
// Any thread. Cannot fail.
uint32_t bliss_abi_version(void);

// The library's version, as text that ends in NUL and lives as long as the library is loaded.
//
// Any thread. Cannot fail.
const char *bliss_version(void);

// Opens the directory that a daemon publishes to, and gives the calling thread a handle on it.
//
// Succeeds before anything was published, and before the directory exists: requests are unscored until something is.
// The name is `directory_len` bytes without NUL. `options` may be NULL. The handle goes to `*out`, which becomes NULL
// where the call fails; then the reason goes to `error` as text that ends in NUL, cut to `error_len` bytes (512 are
// always enough; `error` may be NULL).
//
// Any thread; the handle belongs to it. Returns BLISS_OK, BLISS_ERROR_NULL, BLISS_ERROR_ARGUMENT,
// BLISS_ERROR_SIZE, BLISS_ERROR_OPEN or BLISS_ERROR_PANIC.
//
// # Safety
// - `directory` points to `directory_len` bytes, `options` is NULL or points to a struct of the size it begins with,
//   `out` to a pointer that may be written, and `error` is NULL or points to `error_len` bytes that may be written.
bliss_result_e bliss_open(const char *directory,
                          size_t directory_len,
                          const bliss_options_t *options,
                          bliss_t **out,
                          char *error,
                          size_t error_len);

// Closes a handle and frees what belongs to it; pointers that it returned become invalid. NULL is allowed.
//
// Any thread, so that a handle can be closed after its thread has ended; no other call with it may be under way or
// follow. Cannot fail.
//
// # Safety
// - `handle` is NULL, or came from `bliss_open` and was not closed since.
void bliss_close(bliss_t *handle);

// Does ahead of time what a request would have to do after a publication: looks whether the files were replaced,
// maps and checks what is new, and unmaps what is old. To be called between requests, about once a second; scoring
// works without it, but the first request after a publication then takes longer. A handle that could not count for the
// daemon's metrics, for instance after a fork, tries again here.
//
// The handle's thread only. Pointers that earlier calls returned become invalid. Returns BLISS_OK if features and
// models can be read, else why not (see bliss_result_e).
//
// # Safety
// - `handle` is NULL or open.
bliss_result_e bliss_maintain(bliss_t *handle);

// Why the last call with a result other than BLISS_OK failed, in words: copied to `buffer` with a NUL at the
// end, cut to `buffer_len` bytes (512 are always enough). Returns the length of the whole text without the NUL; 0 if
// nothing has gone wrong yet, or `handle` is NULL or another thread's. `buffer` may be NULL. For results above 0 it
// begins with the words of the reason, after which a colon and details may follow.
//
// The handle's thread only.
//
// # Safety
// - `handle` is NULL or open; `buffer` is NULL or points to `buffer_len` bytes that may be written.
size_t bliss_last_error(bliss_t *handle,
                        char *buffer,
                        size_t buffer_len);

// Why this handle does not count what it looks up and scores for the daemon's metrics, in words: copied to `buffer` with
// a NUL at the end, cut to `buffer_len` bytes (512 are always enough). Returns the length of the whole text without the
// NUL; 0 if it counts, or `handle` is NULL or another thread's. `buffer` may be NULL. That a handle does not count never
// keeps it from answering; it tries again at each bliss_maintain.
//
// The handle's thread only.
//
// # Safety
// - `handle` is NULL or open; `buffer` is NULL or points to `buffer_len` bytes that may be written.
size_t bliss_metrics_error(bliss_t *handle,
                           char *buffer,
                           size_t buffer_len);

// Registers an attribute of requests, for instance `user_agent`, and returns its id, which is 0 or above; the same
// name has the same id. Up to 64 can be registered, once, after the handle was opened. Whether a published dimension
// is keyed by it does not matter. A model may take it as a category, by the name `request.NAME`, unless a number or a
// category is registered under that name.
//
// The handle's thread only. Allocates. Returns the id, or BLISS_ERROR_NULL, BLISS_ERROR_ARGUMENT (empty, longer
// than 128 bytes, not UTF-8), BLISS_ERROR_FULL, BLISS_ERROR_THREAD or BLISS_ERROR_PANIC.
//
// # Safety
// - `handle` is NULL or open; `name` points to `name_len` bytes.
int32_t bliss_attribute_register(bliss_t *handle,
                                 const char *name,
                                 size_t name_len);

// Registers a number that requests bring of their own, and returns its id, which is 0 or above. Models call it
// `request.NAME`; `name` is with or without the prefix. Up to 64 numbers and categories together can be registered.
//
// The handle's thread only. Allocates. Returns the id, or an error as bliss_attribute_register; also BLISS_ERROR_ARGUMENT where
// the name is registered as a category.
//
// # Safety
// - `handle` is NULL or open; `name` points to `name_len` bytes.
int32_t bliss_number_register(bliss_t *handle,
                              const char *name,
                              size_t name_len);

// Registers a category that requests bring of their own, for instance `country`, and returns its id, which is 0 or
// above. Otherwise as bliss_number_register.
//
// The handle's thread only. Allocates. Returns the id, or an error as bliss_attribute_register; also BLISS_ERROR_ARGUMENT where
// the name is registered as a number.
//
// # Safety
// - `handle` is NULL or open; `name` points to `name_len` bytes.
int32_t bliss_category_register(bliss_t *handle,
                                const char *name,
                                size_t name_len);

// Begins a new request: forgets the values of the one before, and all pointers to them.
//
// The handle's thread only. Returns BLISS_OK, BLISS_ERROR_NULL, BLISS_ERROR_THREAD or BLISS_ERROR_PANIC.
//
// # Safety
// - `handle` is NULL or open.
bliss_result_e bliss_request_clear(bliss_t *handle);

// Sets the value of an attribute as text: an address, hexadecimal digits, a string, or a decimal number, as the
// attribute's kind in the schema says. A value that does not fit its kind counts as absent.
//
// The bytes are not copied. They are read by each bliss_score and bliss_lookup that follows, and must be there and
// unchanged then, until bliss_request_clear, or until the attribute is given another value.
//
// The handle's thread only. Returns BLISS_OK, BLISS_ERROR_NULL, BLISS_ERROR_ARGUMENT (unknown id, more than 65536
// bytes; the attribute keeps the value it had), BLISS_ERROR_THREAD or BLISS_ERROR_PANIC.
//
// # Safety
// - `handle` is NULL or open; `value` points to `value_len` bytes that stay as described above.
bliss_result_e bliss_request_set_text(bliss_t *handle,
                                      int32_t attribute,
                                      const char *value,
                                      size_t value_len);

// Sets the value of an attribute as the bytes themselves: 4 or 16 bytes of an address in network order, a digest, a
// string, or 8 bytes of a little-endian number. Otherwise as bliss_request_set_text, borrowing included.
//
// The handle's thread only. Returns what bliss_request_set_text returns.
//
// # Safety
// - `handle` is NULL or open; `value` points to `value_len` bytes that stay as bliss_request_set_text requires.
bliss_result_e bliss_request_set_binary(bliss_t *handle,
                                        int32_t attribute,
                                        const uint8_t *value,
                                        size_t value_len);

// Sets the value of an attribute that is a number, for instance `asn`.
//
// The handle's thread only. Returns what bliss_request_set_text returns.
//
// # Safety
// - `handle` is NULL or open.
bliss_result_e bliss_request_set_u64(bliss_t *handle, int32_t attribute, uint64_t value);

// Sets the value of a number; a number that is not set is NaN to models.
//
// The handle's thread only. Returns BLISS_OK, BLISS_ERROR_NULL, BLISS_ERROR_ARGUMENT (unknown id),
// BLISS_ERROR_THREAD or BLISS_ERROR_PANIC.
//
// # Safety
// - `handle` is NULL or open.
bliss_result_e bliss_request_set_number(bliss_t *handle, int32_t number, float value);

// Sets the value of a category; one that is not set is the empty string to models. The bytes are not needed after
// the call.
//
// The handle's thread only. Returns BLISS_OK, BLISS_ERROR_NULL, BLISS_ERROR_ARGUMENT (unknown id, more than 65536
// bytes), BLISS_ERROR_THREAD or BLISS_ERROR_PANIC.
//
// # Safety
// - `handle` is NULL or open; `value` points to `value_len` bytes.
bliss_result_e bliss_request_set_category(bliss_t *handle,
                                          int32_t category,
                                          const char *value,
                                          size_t value_len);

// Scores the request with the active model of `route`; of the default route if `route` is empty or not there. `now` is
// the time in seconds since the Unix epoch.
//
// No lock and no allocation; a system call only where files were replaced since the last call. The request stays as
// it is, so that it can be scored for another route.
//
// The handle's thread only. Returns BLISS_OK with a score, a number above 0 without one (`answer` is filled in for both),
// or BLISS_ERROR_NULL, BLISS_ERROR_SIZE, BLISS_ERROR_ARGUMENT, BLISS_ERROR_THREAD or BLISS_ERROR_PANIC, and then
// `answer` is not written.
//
// # Safety
// - `handle` is NULL or open, and the values of its request are still there, as bliss_request_set_text requires; `route` points
//   to `route_len` bytes; `answer` is NULL or points to a struct of the size it begins with.
bliss_result_e bliss_score(bliss_t *handle,
                           const char *route,
                           size_t route_len,
                           uint32_t now,
                           bliss_answer_t *answer);

// Says which id the request has in logs, such as nginx's `$request_id`: 1 to 64 bytes of visible ASCII without quotes and
// backslashes. It is copied, and holds until bliss_request_clear. Without it, bliss_decide makes one.
//
// The handle's thread only. Allocates nothing. Returns BLISS_OK, BLISS_ERROR_NULL, BLISS_ERROR_ARGUMENT (the id is as it was
// then), BLISS_ERROR_THREAD or BLISS_ERROR_PANIC.
//
// # Safety
// - `handle` is NULL or open; `id` points to `id_len` bytes.
bliss_result_e bliss_request_set_id(bliss_t *handle,
                                    const char *id,
                                    size_t id_len);

// Scores the request as bliss_score does, and asks the policy of `route` what to do with it; that of the default route if `route`
// is empty or has none. `now` is the time in seconds since the Unix epoch.
//
// Conditions on paths, hosts, methods, addresses and user agents need the attributes path, host, method, ip and user_agent, which
// bliss_http_register registers. A failure of BLISS blocks nobody: without a policy everything is allowed, and `no_policy` says why.
// If the call itself fails, allow the request.
//
// A request without an id of its own (bliss_request_set_id) is given one: 32 hexadecimal digits, of which the first 8 are `now`, the
// next 16 were drawn at random for the handle, and the last 8 count its requests. It is no secret.
//
// No lock and no allocation; a system call only where files were replaced since the last call. What was published last holds
// for this very request. The request stays as it is, so that it can be decided for another route.
//
// The handle's thread only. `answer`, which may be NULL, is filled in as by bliss_score. Returns BLISS_OK, also where there is no score;
// or BLISS_ERROR_NULL, BLISS_ERROR_SIZE, BLISS_ERROR_ARGUMENT, BLISS_ERROR_THREAD or BLISS_ERROR_PANIC, and then neither is to be
// read.
//
// # Safety
// - `handle` is NULL or open, and the values of its request are still there, as bliss_request_set_text requires; `route` points
//   to `route_len` bytes; `decision` is NULL, and so may be `answer`, or points to a struct of the size it begins with.
bliss_result_e bliss_decide(bliss_t *handle,
                            const char *route,
                            size_t route_len,
                            uint32_t now,
                            bliss_decision_t *decision,
                            bliss_answer_t *answer);

// Registers what bliss_request_http hands over: the attributes ip, user_agent, browser, crawler, host, path, method, scheme and
// referrer, and what a request says by itself, which models take as `request.NAME`. To be called once, after the handle was opened.
//
// The handle's thread only. Allocates. Returns BLISS_OK, BLISS_ERROR_NULL, BLISS_ERROR_FULL, BLISS_ERROR_THREAD or
// BLISS_ERROR_PANIC.
//
// # Safety
// - `handle` is NULL or open.
bliss_result_e bliss_http_register(bliss_t *handle);

// Hands over a whole request: sets the attributes that bliss_http_register names (those that are not told become absent), and
// what models take of the request itself. Other attributes, numbers and categories stay as they were.
//
// The struct is copied, the texts are not: as with bliss_request_set_text they are read by each bliss_score and bliss_lookup
// that follows, and must be there and unchanged then, until bliss_request_clear or the next bliss_request_http.
//
// The handle's thread only. Allocates nothing. Returns BLISS_OK, BLISS_ERROR_NULL, BLISS_ERROR_SIZE, BLISS_ERROR_ARGUMENT (a
// text of more than 65536 bytes, or bliss_http_register was not called; nothing is set then), BLISS_ERROR_THREAD or
// BLISS_ERROR_PANIC.
//
// # Safety
// - `handle` is NULL or open; `http` is NULL or points to as many bytes as it says.
// - Each text of `http` is NULL or points to as many bytes as it says, which stay as described above.
bliss_result_e bliss_request_http(bliss_t *handle,
                                  const bliss_http_t *http);

// What the request that was handed over says by itself under a name, with or without `request.` in front: what models see,
// NaN where it is not told. For tools and tests. The site's hosts are those of the publication that the last lookup, score or
// bliss_maintain used; whether a pass holds is asked of the system's clock.
//
// The handle's thread only. Returns BLISS_OK, BLISS_ERROR_NULL, BLISS_ERROR_ARGUMENT (no such value, or no request),
// BLISS_ERROR_THREAD or BLISS_ERROR_PANIC.
//
// # Safety
// - `handle` is NULL or open; `name` points to `name_len` bytes; `value` is NULL or may be written.
// - The texts of the request that was handed over are still there, as bliss_request_http requires.
bliss_result_e bliss_request_value(bliss_t *handle,
                                   const char *name,
                                   size_t name_len,
                                   float *value);

// Makes a pass for the client of the request that bliss_request_http handed over, who passed a challenge: a text of letters, digits
// and points that is to be set as a cookie, and to be told as `pass` with its next requests. Nothing challenges those but rules with
// `even_if_passed`. The pass holds from `now` (in seconds since the Unix epoch) for `valid_seconds`, 1 to 2592000, for the request's
// address (of IPv6 the first 64 bits), its user agent and this installation's secret alone. Whoever calls this vouches for it that the
// client passed.
//
// The text goes to `buffer` with a NUL at the end; it takes at most BLISS_PASS_BYTES.
//
// The handle's thread only. Allocates nothing. Returns BLISS_OK; BLISS_NO_SNAPSHOT or BLISS_BAD_SNAPSHOT (no features can be read,
// with which the secret comes: serve the request, and let the client pass again later); or BLISS_ERROR_NULL, BLISS_ERROR_ARGUMENT (no
// request or no address was told, a time out of range, a buffer of less than BLISS_PASS_BYTES), BLISS_ERROR_THREAD or
// BLISS_ERROR_PANIC. Unless it is BLISS_OK, the buffer is as it was.
//
// # Safety
// - `handle` is NULL or open, and the values of its request are still there, as bliss_request_http requires; `buffer` is NULL or
//   points to `buffer_len` bytes that may be written.
bliss_result_e bliss_pass(bliss_t *handle,
                          uint32_t valid_seconds,
                          uint32_t now,
                          char *buffer,
                          size_t buffer_len);

// Number of shadow models that were evaluated beside the last bliss_score; 0 where the route has none, and where the
// request was unscored before any model was asked.
//
// The handle's thread only; 0 in another one, and where `handle` is NULL.
//
// # Safety
// - `handle` is NULL or open.
size_t bliss_shadow_count(bliss_t *handle);

// The result of shadow model `index` for the request that bliss_score scored last. They come in the order of the
// publication; to be called before anything that looks up or maintains.
//
// No lock, no allocation, no system call.
//
// The handle's thread only. Returns BLISS_OK where `shadow` is filled in, whether or not that model has a score; or
// BLISS_ERROR_NULL, BLISS_ERROR_SIZE, BLISS_ERROR_ARGUMENT (no such shadow), BLISS_ERROR_THREAD or BLISS_ERROR_PANIC.
//
// # Safety
// - `handle` is NULL or open; `shadow` is NULL or points to a struct of the size it begins with.
bliss_result_e bliss_shadow_get(bliss_t *handle,
                                size_t index,
                                bliss_shadow_t *shadow);

// Makes the memory that bliss_explain works in, about 30 MB of address space of which it touches what a model needs. To be
// called once, after the handle was opened, by those who explain; again it does nothing.
//
// The handle's thread only. Allocates. Returns BLISS_OK, BLISS_ERROR_NULL, BLISS_ERROR_THREAD or BLISS_ERROR_PANIC.
//
// # Safety
// - `handle` is NULL or open.
bliss_result_e bliss_explain_register(bliss_t *handle);

// Scores the request as bliss_score does and says what the answer comes from: with the model named `model`, or, where `model`
// is empty, the active one of `route`. bliss_contribution_get then tells each input's part. `now` is the time in seconds since
// the Unix epoch. It reads what is published now, so that a row that changed since bliss_score gives another score.
//
// Not for every request: no lock and no allocation, but it takes time in proportion to the model's leaves, some thousand times
// as long as bliss_score, and the thread does nothing else meanwhile. It is not counted in the daemon's metrics. What
// bliss_shadow_get tells stays.
//
// The handle's thread only. Returns BLISS_OK where `explanation` is filled in; a number above 0 where there is no score, no such
// model, or the model was published without what explanations need (BLISS_NO_LEAF_WEIGHTS); or BLISS_ERROR_NULL,
// BLISS_ERROR_SIZE, BLISS_ERROR_ARGUMENT (also if bliss_explain_register was not called), BLISS_ERROR_THREAD or
// BLISS_ERROR_PANIC. `explanation` is written only with BLISS_OK.
//
// # Safety
// - `handle` is NULL or open, and the values of its request are still there, as bliss_request_set_text requires; `route` points
//   to `route_len` bytes, `model` to `model_len`; `explanation` is NULL or points to a struct of the size it begins with.
bliss_result_e bliss_explain(bliss_t *handle,
                             const char *route,
                             size_t route_len,
                             const char *model,
                             size_t model_len,
                             uint32_t now,
                             bliss_explanation_t *explanation);

// Contribution `index` to the answer that bliss_explain explained last; the largest, above or below 0, comes first.
//
// No lock, no allocation, no system call.
//
// The handle's thread only. Returns BLISS_OK where `contribution` is filled in; or BLISS_ERROR_NULL, BLISS_ERROR_SIZE,
// BLISS_ERROR_ARGUMENT (no such contribution, or other models were bound since), BLISS_ERROR_THREAD or BLISS_ERROR_PANIC.
//
// # Safety
// - `handle` is NULL or open; `contribution` is NULL or points to a struct of the size it begins with.
bliss_result_e bliss_contribution_get(bliss_t *handle,
                                      size_t index,
                                      bliss_contribution_t *contribution);

// Looks up all dimensions for the request. `now` is the time in seconds since the Unix epoch.
//
// No lock and no allocation; a system call only where files were replaced since the last call.
//
// The handle's thread only. Returns BLISS_OK; BLISS_NO_SNAPSHOT or BLISS_BAD_SNAPSHOT, and then all of
// `features` is 0; or BLISS_ERROR_NULL, BLISS_ERROR_SIZE, BLISS_ERROR_THREAD or BLISS_ERROR_PANIC.
//
// # Safety
// - `handle` is NULL or open, and the values of its request are still there, as bliss_request_set_text requires; `features` is
//   NULL or points to a struct of the size it begins with.
bliss_result_e bliss_lookup(bliss_t *handle,
                            uint32_t now,
                            bliss_features_t *features);

// Looks up by keys that bliss_key_compute made, one per dimension in the order of the schema; dimensions beyond `key_count`
// are absent. Otherwise as bliss_lookup.
//
// The handle's thread only. Returns what bliss_lookup returns; also BLISS_ERROR_ARGUMENT where there are more than
// 1024 keys.
//
// # Safety
// - `handle` is NULL or open; `keys` points to `key_count` keys; `features` is NULL or points to a struct of the size it
//   begins with.
bliss_result_e bliss_lookup_keys(bliss_t *handle,
                                 const uint64_t *keys,
                                 size_t key_count,
                                 uint32_t now,
                                 bliss_features_t *features);

// The key of a dimension for attribute values given in the order of its key. It belongs to this installation: every
// directory has a secret of its own that enters it.
//
// The handle's thread only. Returns BLISS_OK; BLISS_NO_SNAPSHOT or BLISS_BAD_SNAPSHOT; or BLISS_ERROR_NULL,
// BLISS_ERROR_ARGUMENT (no such dimension, another number of values, one that does not fit its kind),
// BLISS_ERROR_THREAD or BLISS_ERROR_PANIC.
//
// # Safety
// - `handle` is NULL or open; `values` points to `value_count` values, each as its kind says; `key` is NULL or may be
//   written.
bliss_result_e bliss_key_compute(bliss_t *handle,
                                 size_t dimension,
                                 const bliss_value_t *values,
                                 size_t value_count,
                                 uint64_t *key);

// Number of dimensions of the publication that the last call used; 0 before one was seen.
//
// The handle's thread only; 0 in another one, and where `handle` is NULL.
//
// # Safety
// - `handle` is NULL or open.
size_t bliss_dimension_count(bliss_t *handle);

// The name of a dimension, by its index in the schema. It may be read until the next call that looks up, scores or
// maintains.
//
// The handle's thread only. Returns BLISS_OK, BLISS_ERROR_NULL, BLISS_ERROR_ARGUMENT (index out of range),
// BLISS_ERROR_THREAD or BLISS_ERROR_PANIC.
//
// # Safety
// - `handle` is NULL or open; `name` is NULL or may be written.
bliss_result_e bliss_dimension_name(bliss_t *handle,
                                    size_t dimension,
                                    bliss_text_t *name);

// Total number of features of all dimensions: the length of a lookup's values. 0 before a publication was seen.
//
// The handle's thread only; 0 in another one, and where `handle` is NULL.
//
// # Safety
// - `handle` is NULL or open.
size_t bliss_feature_count(bliss_t *handle);

// The names of a feature and of its dimension, by its index in a lookup's values. They may be read until the next
// call that looks up, scores or maintains. Either pointer may be NULL.
//
// The handle's thread only. Returns what bliss_dimension_name returns.
//
// # Safety
// - `handle` is NULL or open; `dimension` and `feature` are each NULL or may be written.
bliss_result_e bliss_feature_name(bliss_t *handle,
                                  size_t index,
                                  bliss_text_t *dimension,
                                  bliss_text_t *feature);

// Number of models of the publication that the last score used; 0 before one was seen.
//
// The handle's thread only; 0 in another one, and where `handle` is NULL.
//
// # Safety
// - `handle` is NULL or open.
size_t bliss_model_count(bliss_t *handle);

// Name and version of a model, and its first input that neither the features nor the caller provide (none if it has all).
// They may be read until the next call that looks up, scores or maintains. Each of the three pointers may be NULL.
//
// The handle's thread only. Returns what bliss_dimension_name returns.
//
// # Safety
// - `handle` is NULL or open; `name`, `version` and `missing_input` are each NULL or may be written.
bliss_result_e bliss_model_get(bliss_t *handle,
                               size_t model,
                               bliss_text_t *name,
                               bliss_text_t *version,
                               bliss_text_t *missing_input);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* BLISS_FFI_H */
