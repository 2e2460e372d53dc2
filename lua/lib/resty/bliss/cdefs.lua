-- Made by lua/tests/cdefs.rs from bliss-ffi/src; do not edit. bliss_ffi.h says what all this is.

local ffi = require "ffi"

if not pcall(ffi.typeof, "bliss_answer_t") then
    ffi.cdef [[
typedef int32_t bliss_result_e;
typedef struct bliss_t bliss_t;
typedef struct {
    size_t size;
    uint64_t max_size_bytes;
} bliss_options_t;
typedef struct {
    const char *data;
    size_t len;
} bliss_text_t;
typedef struct {
    size_t size;
    int32_t result;
    uint32_t score;
    double bot_probability;
    uint64_t features_generation;
    uint64_t models_generation;
    uint32_t model_index;
    uint32_t fresh;
    uint32_t stale;
    uint32_t missing;
    uint32_t absent;
    uint32_t model_binding_count;
    bliss_text_t model_name;
    bliss_text_t model_version;
    bliss_text_t reason;
    bliss_text_t missing_input;
} bliss_answer_t;
typedef struct {
    size_t size;
    uint32_t action;
    uint32_t status;
    uint32_t simulated_action;
    uint32_t no_policy;
    uint64_t policies_generation;
    uint32_t unbound_count;
    int32_t challenge_passed;
    bliss_text_t rule;
    bliss_text_t simulated_rule;
    bliss_text_t exception;
    bliss_text_t policy;
    bliss_text_t header_name;
    bliss_text_t header_value;
    bliss_text_t no_policy_reason;
    bliss_text_t request_id;
} bliss_decision_t;
typedef struct {
    size_t size;
    bliss_text_t ip;
    bliss_text_t ip_bytes;
    bliss_text_t method;
    bliss_text_t target;
    bliss_text_t scheme;
    bliss_text_t host;
    bliss_text_t user_agent;
    bliss_text_t referrer;
    bliss_text_t accept;
    bliss_text_t accept_language;
    bliss_text_t accept_encoding;
    bliss_text_t sec_fetch_site;
    bliss_text_t sec_fetch_mode;
    bliss_text_t sec_fetch_dest;
    bliss_text_t sec_ch_ua;
    bliss_text_t sec_ch_ua_mobile;
    bliss_text_t sec_ch_ua_platform;
    bliss_text_t pass;
} bliss_http_t;
typedef struct {
    size_t size;
    int32_t result;
    uint32_t score;
    double bot_probability;
    uint32_t model_index;
    uint32_t reserved;
    bliss_text_t model_name;
    bliss_text_t model_version;
    bliss_text_t reason;
    bliss_text_t missing_input;
} bliss_shadow_t;
typedef struct {
    size_t size;
    uint32_t score;
    uint32_t expected_score;
    double bot_probability;
    double answer;
    double expected;
    uint64_t features_generation;
    uint64_t models_generation;
    size_t input_count;
    uint32_t model_index;
    uint32_t model_binding_count;
    bliss_text_t model_name;
    bliss_text_t model_version;
} bliss_explanation_t;
typedef struct {
    size_t size;
    bliss_text_t group;
    bliss_text_t name;
    double contribution;
    double points;
    float value;
    uint32_t is_category;
    uint32_t category_hash;
    uint32_t status;
    uint32_t input_index;
    uint32_t reserved;
} bliss_contribution_t;
typedef struct {
    size_t size;
    uint64_t generation;
    const float *values;
    size_t value_count;
    const uint8_t *statuses;
    size_t dimension_count;
} bliss_features_t;
typedef struct {
    uint32_t kind;
    uint32_t reserved;
    uint64_t number;
    const uint8_t *data;
    size_t len;
} bliss_value_t;
uint32_t bliss_abi_version(void);
const char *bliss_version(void);
bliss_result_e bliss_open(const char *directory,
                          size_t directory_len,
                          const bliss_options_t *options,
                          bliss_t **out,
                          char *error,
                          size_t error_len);
void bliss_close(bliss_t *handle);
bliss_result_e bliss_maintain(bliss_t *handle);
size_t bliss_last_error(bliss_t *handle, char *buffer, size_t buffer_len);
size_t bliss_metrics_error(bliss_t *handle, char *buffer, size_t buffer_len);
int32_t bliss_attribute_register(bliss_t *handle, const char *name, size_t name_len);
int32_t bliss_number_register(bliss_t *handle, const char *name, size_t name_len);
int32_t bliss_category_register(bliss_t *handle, const char *name, size_t name_len);
bliss_result_e bliss_request_clear(bliss_t *handle);
bliss_result_e bliss_request_set_text(bliss_t *handle,
                                      int32_t attribute,
                                      const char *value,
                                      size_t value_len);
bliss_result_e bliss_request_set_binary(bliss_t *handle,
                                        int32_t attribute,
                                        const uint8_t *value,
                                        size_t value_len);
bliss_result_e bliss_request_set_u64(bliss_t *handle, int32_t attribute, uint64_t value);
bliss_result_e bliss_request_set_number(bliss_t *handle, int32_t number, float value);
bliss_result_e bliss_request_set_category(bliss_t *handle,
                                          int32_t category,
                                          const char *value,
                                          size_t value_len);
bliss_result_e bliss_score(bliss_t *handle,
                           const char *route,
                           size_t route_len,
                           uint32_t now,
                           bliss_answer_t *answer);
bliss_result_e bliss_request_set_id(bliss_t *handle, const char *id, size_t id_len);
bliss_result_e bliss_decide(bliss_t *handle,
                            const char *route,
                            size_t route_len,
                            uint32_t now,
                            bliss_decision_t *decision,
                            bliss_answer_t *answer);
bliss_result_e bliss_http_register(bliss_t *handle);
bliss_result_e bliss_request_http(bliss_t *handle, const bliss_http_t *http);
bliss_result_e bliss_request_value(bliss_t *handle, const char *name, size_t name_len, float *value);
bliss_result_e bliss_pass(bliss_t *handle,
                          uint32_t valid_seconds,
                          uint32_t now,
                          char *buffer,
                          size_t buffer_len);
size_t bliss_shadow_count(bliss_t *handle);
bliss_result_e bliss_shadow_get(bliss_t *handle, size_t index, bliss_shadow_t *shadow);
bliss_result_e bliss_explain_register(bliss_t *handle);
bliss_result_e bliss_explain(bliss_t *handle,
                             const char *route,
                             size_t route_len,
                             const char *model,
                             size_t model_len,
                             uint32_t now,
                             bliss_explanation_t *explanation);
bliss_result_e bliss_contribution_get(bliss_t *handle, size_t index, bliss_contribution_t *contribution);
bliss_result_e bliss_lookup(bliss_t *handle, uint32_t now, bliss_features_t *features);
bliss_result_e bliss_lookup_keys(bliss_t *handle,
                                 const uint64_t *keys,
                                 size_t key_count,
                                 uint32_t now,
                                 bliss_features_t *features);
bliss_result_e bliss_key_compute(bliss_t *handle,
                                 size_t dimension,
                                 const bliss_value_t *values,
                                 size_t value_count,
                                 uint64_t *key);
size_t bliss_dimension_count(bliss_t *handle);
bliss_result_e bliss_dimension_name(bliss_t *handle, size_t dimension, bliss_text_t *name);
size_t bliss_feature_count(bliss_t *handle);
bliss_result_e bliss_feature_name(bliss_t *handle,
                                  size_t index,
                                  bliss_text_t *dimension,
                                  bliss_text_t *feature);
size_t bliss_model_count(bliss_t *handle);
bliss_result_e bliss_model_get(bliss_t *handle,
                               size_t model,
                               bliss_text_t *name,
                               bliss_text_t *version,
                               bliss_text_t *missing_input);
]]
end

return { ABI_VERSION = 1 }
