/*
 * Uses libblissffi as a web server would. Run by tests/c_abi.rs:
 *
 *   client score DIRECTORY    reads lines "ADDRESS HEADERS COUNTRY ROUTE" and answers each with one line
 *   client calls DIRECTORY    makes wrong calls and checks what they return
 *   client fork DIRECTORY     uses one handle in a parent and in its children
 *   client threads DIRECTORY  opens, uses and closes handles in eight threads
 *   client allocations DIRECTORY   (compiled with COUNT_ALLOCATIONS) counts allocations while it scores
 *
 * A route of "-" is the default one.
 */
#define _GNU_SOURCE
#include <bliss_ffi.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            exit(1); \
        } \
    } while (0)

#ifdef COUNT_ALLOCATIONS
static volatile size_t allocations;
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

void *malloc(size_t size) {
    allocations++;
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    allocations++;
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size) {
    allocations++;
    return __libc_realloc(old, size);
}

int posix_memalign(void **out, size_t alignment, size_t size) {
    allocations++;
    *out = __libc_memalign(alignment, size);
    return *out ? 0 : 12;
}

void *aligned_alloc(size_t alignment, size_t size) {
    allocations++;
    return __libc_memalign(alignment, size);
}
#endif

/* Little address space, so that valgrind can reserve it. */
static bliss_t *open_directory(const char *directory) {
    bliss_options_t options = {.size = sizeof options, .max_size_bytes = 16 << 20};
    bliss_t *handle = NULL;
    char error[512];
    bliss_result_e opened = bliss_open(directory, strlen(directory), &options, &handle, error, sizeof error);
    if (opened != BLISS_OK) {
        fprintf(stderr, "bliss_open: %d: %s\n", (int)opened, error);
        exit(1);
    }
    CHECK(handle != NULL);
    return handle;
}

static _Thread_local int32_t ip, headers, country;

static void register_names(bliss_t *handle) {
    ip = bliss_attribute_register(handle, "ip", 2);
    headers = bliss_number_register(handle, "header_count", 12);
    country = bliss_category_register(handle, "request.country", 15);
    CHECK(ip >= 0 && headers >= 0 && country >= 0);
}

static bliss_result_e score(bliss_t *handle, const char *address, float header_count, const char *from,
                            const char *route, bliss_answer_t *answer) {
    answer->size = sizeof *answer;
    CHECK(bliss_request_clear(handle) == BLISS_OK);
    CHECK(bliss_request_set_text(handle, ip, address, strlen(address)) == BLISS_OK);
    CHECK(bliss_request_set_number(handle, headers, header_count) == BLISS_OK);
    CHECK(bliss_request_set_category(handle, country, from, strlen(from)) == BLISS_OK);
    size_t route_len = strcmp(route, "-") == 0 ? 0 : strlen(route);
    return bliss_score(handle, route, route_len, (uint32_t)time(NULL), answer);
}

static const char *last_error(bliss_t *handle) {
    static char text[512];
    bliss_last_error(handle, text, sizeof text);
    return text;
}

static void score_lines(const char *directory) {
    bliss_t *handle = open_directory(directory);
    register_names(handle);
    puts("open");
    fflush(stdout);
    char address[64], from[64], route[64];
    float header_count;
    while (scanf("%63s %f %63s %63s", address, &header_count, from, route) == 4) {
        bliss_answer_t answer;
        bliss_result_e code = score(handle, address, header_count, from, route, &answer);
        CHECK(answer.result == (int32_t)code);
        for (size_t i = 0; i < bliss_shadow_count(handle); i++) {
            bliss_shadow_t shadow = {.size = sizeof shadow};
            CHECK(bliss_shadow_get(handle, i, &shadow) == BLISS_OK);
            printf("(%.*s %u) ", (int)shadow.model_name.len, shadow.model_name.data, shadow.score);
        }
        printf("%d %u %u/%u/%u/%u %.*s/%.*s [%.*s] [%.*s] %s\n", (int)code, answer.score, answer.fresh, answer.stale,
               answer.missing, answer.absent, (int)answer.model_name.len, answer.model_name.data,
               (int)answer.model_version.len, answer.model_version.data, (int)answer.reason.len, answer.reason.data,
               (int)answer.missing_input.len, answer.missing_input.data, code == BLISS_OK ? "" : last_error(handle));
        fflush(stdout);
    }
    bliss_close(handle);
}

static void *from_another_thread(void *handle) {
    bliss_answer_t answer = {.size = sizeof answer};
    CHECK(bliss_score(handle, NULL, 0, 0, &answer) == BLISS_ERROR_THREAD);
    CHECK(bliss_request_clear(handle) == BLISS_ERROR_THREAD);
    CHECK(bliss_attribute_register(handle, "ip", 2) == BLISS_ERROR_THREAD);
    CHECK(bliss_feature_count(handle) == 0 && bliss_shadow_count(handle) == 0);
    bliss_explanation_t why = {.size = sizeof why};
    bliss_contribution_t part = {.size = sizeof part};
    CHECK(bliss_explain_register(handle) == BLISS_ERROR_THREAD);
    CHECK(bliss_explain(handle, NULL, 0, NULL, 0, 0, &why) == BLISS_ERROR_THREAD);
    CHECK(bliss_contribution_get(handle, 0, &part) == BLISS_ERROR_THREAD);
    CHECK(bliss_last_error(handle, NULL, 0) == 0);
    return NULL;
}

/* Explains the request that is set with the active model of a route, or with a model, and adds up what it says. */
static bliss_explanation_t explain(bliss_t *handle, const char *route, const char *model) {
    bliss_explanation_t why = {.size = sizeof why};
    bliss_contribution_t part = {.size = sizeof part};
    CHECK(bliss_explain(handle, route, strlen(route), model, strlen(model), (uint32_t)time(NULL), &why) == BLISS_OK);
    double answer = why.expected, points = why.expected_score, before = 1e9;
    for (size_t i = 0; i < why.input_count; i++) {
        CHECK(bliss_contribution_get(handle, i, &part) == BLISS_OK);
        double size = part.contribution < 0 ? -part.contribution : part.contribution;
        CHECK(size <= before);
        before = size;
        answer += part.contribution;
        points += part.points;
    }
    CHECK(answer - why.answer < 1e-9 && why.answer - answer < 1e-9);
    CHECK(points - why.score < 1e-6 && why.score - points < 1e-6);
    CHECK(bliss_contribution_get(handle, why.input_count, &part) == BLISS_ERROR_ARGUMENT);
    return why;
}

static void explain_scores(const char *directory) {
    bliss_t *handle = open_directory(directory);
    register_names(handle);
    bliss_explanation_t why = {.size = sizeof why};
    bliss_contribution_t part = {.size = sizeof part};
    bliss_answer_t answer;
    uint32_t now = (uint32_t)time(NULL);
    CHECK(bliss_explain(handle, NULL, 0, NULL, 0, now, &why) == BLISS_ERROR_ARGUMENT);
    CHECK(strstr(last_error(handle), "bliss_explain_register"));
    CHECK(bliss_contribution_get(handle, 0, &part) == BLISS_ERROR_ARGUMENT);
    CHECK(bliss_explain_register(NULL) == BLISS_ERROR_NULL);
    CHECK(bliss_explain_register(handle) == BLISS_OK && bliss_explain_register(handle) == BLISS_OK);
    CHECK(bliss_contribution_get(handle, 0, &part) == BLISS_ERROR_ARGUMENT);

    CHECK(score(handle, "192.0.2.60", 3, "XX", "-", &answer) == BLISS_OK);
    why = explain(handle, "", "");
    CHECK(why.score == answer.score && why.bot_probability == answer.bot_probability && why.input_count == 3);
    CHECK(why.model_index == answer.model_index && why.model_binding_count == answer.model_binding_count);
    CHECK(why.model_name.len == 4 && memcmp(why.model_name.data, "demo", 4) == 0);
    CHECK(why.features_generation == answer.features_generation && why.models_generation == answer.models_generation);
    /* What the model is made of: see model() in support/mod.rs. */
    CHECK(why.answer == 3.5 && why.expected > 0.7 - 1e-9 && why.expected < 0.7 + 1e-9);
    CHECK(bliss_contribution_get(handle, 0, &part) == BLISS_OK);
    CHECK(part.group.len == 2 && memcmp(part.group.data, "ip", 2) == 0);
    CHECK(part.name.len == 11 && memcmp(part.name.data, "requests_1m", 11) == 0);
    CHECK(part.contribution > 1.6 - 1e-9 && part.contribution < 1.6 + 1e-9 && part.points < 0);
    CHECK(part.value == 60.0f && part.is_category == 0 && part.status == BLISS_STATUS_FRESH && part.reserved == 0);
    CHECK(bliss_contribution_get(handle, 1, &part) == BLISS_OK);
    CHECK(part.group.len == 7 && memcmp(part.group.data, "request", 7) == 0);
    CHECK(part.name.len == 7 && memcmp(part.name.data, "country", 7) == 0);
    CHECK(part.is_category == 1 && part.category_hash != 0 && part.value != part.value);
    CHECK(part.status == BLISS_STATUS_UNUSED);
    /* What the shadows said stays, and so does what was explained while the request is scored. */
    CHECK(bliss_shadow_count(handle) == 1);
    CHECK(score(handle, "192.0.2.7", 3, "XX", "-", &answer) == BLISS_OK);
    CHECK(bliss_contribution_get(handle, 0, &part) == BLISS_OK && part.value == 60.0f);

    CHECK(explain(handle, "login", "").model_name.len == 6);
    CHECK(explain(handle, "", "strict").expected > 1.6);
    static char endless[100000];
    memset(endless, '\xff', sizeof endless);
    CHECK(bliss_explain(handle, NULL, 0, "nobody", 6, now, &why) == BLISS_NO_SUCH_MODEL);
    CHECK(strstr(last_error(handle), "no such model: "));
    CHECK(bliss_contribution_get(handle, 0, &part) == BLISS_ERROR_ARGUMENT);
    CHECK(bliss_explain(handle, NULL, 0, endless, sizeof endless, now, &why) == BLISS_NO_SUCH_MODEL);
    CHECK(bliss_explain(handle, endless, sizeof endless, NULL, 0, now, &why) == BLISS_OK);
    CHECK(bliss_explain(NULL, NULL, 0, NULL, 0, now, &why) == BLISS_ERROR_NULL);
    CHECK(bliss_explain(handle, NULL, 1, NULL, 0, now, &why) == BLISS_ERROR_NULL);
    CHECK(bliss_explain(handle, NULL, 0, NULL, 1, now, &why) == BLISS_ERROR_NULL);
    CHECK(bliss_explain(handle, NULL, 0, NULL, 0, now, NULL) == BLISS_ERROR_NULL);
    why.size = 8;
    CHECK(bliss_explain(handle, NULL, 0, NULL, 0, now, &why) == BLISS_ERROR_SIZE);
    CHECK(strstr(last_error(handle), "sizeof(bliss_explanation_t)"));
    explain(handle, "", "");
    CHECK(bliss_contribution_get(NULL, 0, &part) == BLISS_ERROR_NULL);
    CHECK(bliss_contribution_get(handle, 0, NULL) == BLISS_ERROR_NULL);
    CHECK(bliss_contribution_get(handle, SIZE_MAX, &part) == BLISS_ERROR_ARGUMENT);
    part.size = 7;
    CHECK(bliss_contribution_get(handle, 0, &part) == BLISS_ERROR_SIZE);
    bliss_close(handle);
}

/* A model that scores and cannot be explained. */
static void unexplained(const char *directory) {
    bliss_t *handle = open_directory(directory);
    register_names(handle);
    CHECK(bliss_explain_register(handle) == BLISS_OK);
    bliss_answer_t answer;
    bliss_explanation_t why = {.size = sizeof why};
    CHECK(score(handle, "192.0.2.60", 3, "XX", "-", &answer) == BLISS_OK);
    CHECK(bliss_explain(handle, NULL, 0, NULL, 0, (uint32_t)time(NULL), &why) == BLISS_NO_LEAF_WEIGHTS);
    puts(last_error(handle));
    CHECK(score(handle, "192.0.2.60", 3, "XX", "-", &answer) == BLISS_OK);
    bliss_close(handle);
}

static void wrong_calls(const char *directory) {
    char error[512] = "";
    bliss_t *handle = NULL;
    CHECK(bliss_abi_version() == BLISS_ABI_VERSION);
    CHECK(strlen(bliss_version()) >= 5);
    CHECK(bliss_open(directory, strlen(directory), NULL, NULL, error, sizeof error) == BLISS_ERROR_NULL);
    CHECK(strstr(error, "NULL"));
    CHECK(bliss_open(NULL, 3, NULL, &handle, NULL, 0) == BLISS_ERROR_NULL);
    CHECK(bliss_open("", 0, NULL, &handle, error, sizeof error) == BLISS_ERROR_ARGUMENT);
    CHECK(bliss_open("a\0b", 3, NULL, &handle, error, sizeof error) == BLISS_ERROR_ARGUMENT);
    CHECK(bliss_open("/tmp", (size_t)1 << 40, NULL, &handle, error, sizeof error) == BLISS_ERROR_ARGUMENT);
    bliss_options_t options = {.size = 3, .max_size_bytes = 16 << 20};
    CHECK(bliss_open("/tmp", 4, &options, &handle, error, sizeof error) == BLISS_ERROR_SIZE);
    CHECK(strstr(error, "sizeof(bliss_options_t)"));
    CHECK(handle == NULL);
    options.size = sizeof options;
    options.max_size_bytes = UINT64_MAX;
    CHECK(bliss_open("/tmp", 4, &options, &handle, error, 10) == BLISS_ERROR_OPEN);
    CHECK(strlen(error) == 9);

    handle = open_directory(directory);
    bliss_answer_t answer = {.size = sizeof answer};
    bliss_features_t features = {.size = sizeof features};
    uint64_t key = 0;

    CHECK(bliss_attribute_register(NULL, "ip", 2) == BLISS_ERROR_NULL);
    CHECK(bliss_attribute_register(handle, NULL, 2) == BLISS_ERROR_NULL);
    CHECK(bliss_attribute_register(handle, "", 0) == BLISS_ERROR_ARGUMENT);
    CHECK(bliss_attribute_register(handle, "\xff", 1) == BLISS_ERROR_ARGUMENT);
    CHECK(strstr(last_error(handle), "UTF-8"));
    CHECK(bliss_attribute_register(handle, "ip", SIZE_MAX) == BLISS_ERROR_ARGUMENT);
    register_names(handle);
    CHECK(bliss_attribute_register(handle, "ip", 2) == ip);
    CHECK(bliss_category_register(handle, "header_count", 12) == BLISS_ERROR_ARGUMENT);
    CHECK(strstr(last_error(handle), "type"));
    char name[16];
    for (int i = 1; i < 64; i++) {
        CHECK(bliss_attribute_register(handle, name, (size_t)sprintf(name, "a%d", i)) == i);
    }
    CHECK(bliss_attribute_register(handle, "one more", 8) == BLISS_ERROR_FULL);
    CHECK(strstr(last_error(handle), "64"));

    CHECK(bliss_request_clear(NULL) == BLISS_ERROR_NULL);
    CHECK(bliss_request_set_text(NULL, 0, "x", 1) == BLISS_ERROR_NULL);
    CHECK(bliss_request_set_text(handle, 0, NULL, 1) == BLISS_ERROR_NULL);
    CHECK(bliss_request_set_text(handle, 0, NULL, 0) == BLISS_OK);
    CHECK(bliss_request_set_text(handle, 64, "x", 1) == BLISS_ERROR_ARGUMENT);
    CHECK(bliss_request_set_text(handle, -1, "x", 1) == BLISS_ERROR_ARGUMENT);
    CHECK(bliss_request_set_text(handle, 0, "x", SIZE_MAX) == BLISS_ERROR_ARGUMENT);
    CHECK(bliss_request_set_binary(handle, 0, (const uint8_t *)"x", 65537) == BLISS_ERROR_ARGUMENT);
    CHECK(bliss_request_set_u64(handle, INT32_MAX, 1) == BLISS_ERROR_ARGUMENT);
    CHECK(bliss_request_set_u64(handle, INT32_MIN, 1) == BLISS_ERROR_ARGUMENT);
    CHECK(bliss_request_set_number(handle, country, 1) == BLISS_ERROR_ARGUMENT);
    CHECK(bliss_request_set_category(handle, headers, "x", 1) == BLISS_ERROR_ARGUMENT);
    CHECK(bliss_request_set_category(handle, country, NULL, 1) == BLISS_ERROR_NULL);

    CHECK(bliss_score(NULL, NULL, 0, 0, &answer) == BLISS_ERROR_NULL);
    CHECK(bliss_score(handle, NULL, 0, 0, NULL) == BLISS_ERROR_NULL);
    CHECK(bliss_score(handle, NULL, 1, 0, &answer) == BLISS_ERROR_NULL);
    answer.size = 0;
    CHECK(bliss_score(handle, NULL, 0, 0, &answer) == BLISS_ERROR_SIZE);
    CHECK(strstr(last_error(handle), "sizeof(bliss_answer_t)"));
    answer.size = sizeof answer;
    /* A route that nobody could have named is the default one. */
    static char endless[100000];
    memset(endless, '\xff', sizeof endless);
    CHECK(bliss_score(handle, endless, sizeof endless, 0, &answer) == BLISS_OK);
    CHECK(answer.score >= 1 && answer.score <= 99 && answer.absent == 1);

    bliss_shadow_t shadow = {.size = sizeof shadow};
    CHECK(bliss_shadow_count(NULL) == 0 && bliss_shadow_count(handle) == 1);
    CHECK(bliss_shadow_get(NULL, 0, &shadow) == BLISS_ERROR_NULL);
    CHECK(bliss_shadow_get(handle, 0, NULL) == BLISS_ERROR_NULL);
    CHECK(bliss_shadow_get(handle, 1, &shadow) == BLISS_ERROR_ARGUMENT);
    CHECK(bliss_shadow_get(handle, SIZE_MAX, &shadow) == BLISS_ERROR_ARGUMENT);
    CHECK(strstr(last_error(handle), "bliss_shadow_count"));
    shadow.size = 1;
    CHECK(bliss_shadow_get(handle, 0, &shadow) == BLISS_ERROR_SIZE);
    shadow.size = sizeof shadow;
    CHECK(bliss_shadow_get(handle, 0, &shadow) == BLISS_OK);
    CHECK(shadow.result == BLISS_OK && shadow.score >= 1 && shadow.score <= 99 && shadow.model_index == 1);
    CHECK(shadow.model_name.len == 6 && memcmp(shadow.model_name.data, "strict", 6) == 0);
    CHECK(shadow.bot_probability > answer.bot_probability && shadow.reason.len == 0);

    CHECK(bliss_lookup(NULL, 0, &features) == BLISS_ERROR_NULL);
    CHECK(bliss_lookup(handle, 0, NULL) == BLISS_ERROR_NULL);
    CHECK(bliss_lookup(handle, 0, &features) == BLISS_OK);
    CHECK(features.value_count == 3 && features.dimension_count == 2);
    CHECK(features.statuses[0] == BLISS_STATUS_ABSENT);
    CHECK(bliss_lookup_keys(handle, NULL, 3, 0, &features) == BLISS_ERROR_NULL);
    CHECK(bliss_lookup_keys(handle, &key, SIZE_MAX, 0, &features) == BLISS_ERROR_ARGUMENT);
    bliss_value_t value = {.kind = BLISS_VALUE_TEXT, .data = (const uint8_t *)"192.0.2.60", .len = 10};
    CHECK(bliss_key_compute(handle, 0, &value, 1, NULL) == BLISS_ERROR_NULL);
    CHECK(bliss_key_compute(handle, 9, &value, 1, &key) == BLISS_ERROR_ARGUMENT);
    CHECK(bliss_key_compute(handle, 0, &value, 0, &key) == BLISS_ERROR_ARGUMENT);
    CHECK(bliss_key_compute(handle, 0, &value, SIZE_MAX, &key) == BLISS_ERROR_ARGUMENT);
    CHECK(bliss_key_compute(handle, 0, &value, 1, &key) == BLISS_OK);
    CHECK(bliss_lookup_keys(handle, &key, 1, (uint32_t)time(NULL), &features) == BLISS_OK);
    CHECK(features.statuses[0] == BLISS_STATUS_FRESH && features.values[0] == 60.0f);
    CHECK(features.statuses[1] == BLISS_STATUS_ABSENT);
    value.kind = 77;
    CHECK(bliss_key_compute(handle, 0, &value, 1, &key) == BLISS_ERROR_ARGUMENT);

    bliss_text_t dimension, feature, version, missing;
    CHECK(bliss_dimension_count(handle) == 2 && bliss_feature_count(handle) == 3 && bliss_model_count(handle) == 2);
    CHECK(bliss_dimension_name(handle, 1, &dimension) == BLISS_OK);
    CHECK(dimension.len == 10 && memcmp(dimension.data, "user_agent", 10) == 0);
    CHECK(bliss_dimension_name(handle, 2, &dimension) == BLISS_ERROR_ARGUMENT);
    CHECK(bliss_dimension_name(handle, 1, NULL) == BLISS_OK);
    CHECK(bliss_feature_name(handle, 1, &dimension, &feature) == BLISS_OK);
    CHECK(dimension.len == 2 && feature.len == 21);
    CHECK(bliss_feature_name(handle, SIZE_MAX, &dimension, &feature) == BLISS_ERROR_ARGUMENT);
    CHECK(bliss_model_get(handle, 0, &feature, &version, &missing) == BLISS_OK);
    CHECK(feature.len == 4 && version.len == 1 && missing.len == 0 && missing.data == NULL);
    CHECK(bliss_model_get(handle, 2, NULL, NULL, NULL) == BLISS_ERROR_ARGUMENT);
    CHECK(bliss_dimension_count(NULL) == 0 && bliss_feature_count(NULL) == 0 && bliss_model_count(NULL) == 0);
    CHECK(bliss_maintain(NULL) == BLISS_ERROR_NULL);
    CHECK(bliss_maintain(handle) == BLISS_OK);
    CHECK(bliss_last_error(NULL, error, sizeof error) == 0);
    CHECK(bliss_metrics_error(NULL, error, sizeof error) == 0);
    size_t why = bliss_metrics_error(handle, error, sizeof error);
    CHECK(why == strlen(error) && (why == 0 || strstr(error, "counters: ")));

    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, from_another_thread, handle) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    bliss_close(handle);
    bliss_close(NULL);
}

static uint32_t score_many(bliss_t *handle, int times) {
    bliss_answer_t answer;
    for (int i = 0; i < times; i++) {
        CHECK(score(handle, "192.0.2.60", 3, "XX", "-", &answer) == BLISS_OK);
    }
    return answer.score;
}

/* One handle, opened before the fork, as nginx's master might; the test publishes meanwhile. */
static void forked(const char *directory) {
    bliss_t *handle = open_directory(directory);
    register_names(handle);
    uint32_t expected = score_many(handle, 100);
    puts("open");
    fflush(stdout);
    pid_t children[4];
    for (int i = 0; i < 4; i++) {
        children[i] = fork();
        CHECK(children[i] >= 0);
        if (children[i] == 0) {
            for (int round = 0; round < 50; round++) {
                CHECK(score_many(handle, 100) == expected);
                usleep(2000);
            }
            bliss_close(handle);
            _exit(0);
        }
    }
    CHECK(score_many(handle, 5000) == expected);
    for (int i = 0; i < 4; i++) {
        int status;
        CHECK(waitpid(children[i], &status, 0) == children[i]);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    CHECK(score_many(handle, 100) == expected);
    bliss_close(handle);
    puts("done");
}

static void *score_and_close(void *directory) {
    for (int round = 0; round < 20; round++) {
        bliss_t *handle = open_directory(directory);
        register_names(handle);
        score_many(handle, 200);
        bliss_maintain(handle);
        bliss_close(handle);
    }
    return NULL;
}

/* A handle for each thread; the test publishes meanwhile. */
static void threads(char *directory) {
    pthread_t running[8];
    puts("open");
    fflush(stdout);
    for (int i = 0; i < 8; i++) {
        CHECK(pthread_create(&running[i], NULL, score_and_close, directory) == 0);
    }
    for (int i = 0; i < 8; i++) {
        CHECK(pthread_join(running[i], NULL) == 0);
    }
    puts("done");
}

#ifdef COUNT_ALLOCATIONS
/* Scores until there is no more input; one line a round, with what was allocated in it. */
static void count_allocations(const char *directory) {
    bliss_t *handle = open_directory(directory);
    register_names(handle);
    CHECK(bliss_explain_register(handle) == BLISS_OK);
    CHECK(allocations > 0);
    puts("open");
    fflush(stdout);
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        bliss_answer_t answer;
        bliss_features_t features = {.size = sizeof features};
        size_t before = allocations;
        bliss_maintain(handle);
        for (int i = 0; i < 100; i++) {
            score(handle, "192.0.2.60", 3, "XX", "login", &answer);
            bliss_shadow_t shadow = {.size = sizeof shadow};
            CHECK(bliss_shadow_get(handle, 0, &shadow) == (answer.score > 0 ? BLISS_OK : BLISS_ERROR_ARGUMENT));
            bliss_explanation_t why = {.size = sizeof why};
            bliss_contribution_t part = {.size = sizeof part};
            bliss_result_e explained = bliss_explain(handle, "login", 5, NULL, 0, (uint32_t)time(NULL), &why);
            CHECK((explained == BLISS_OK) == (answer.score > 0));
            CHECK((bliss_contribution_get(handle, 0, &part) == BLISS_OK) == (answer.score > 0));
            bliss_lookup(handle, (uint32_t)time(NULL), &features);
        }
        size_t made = allocations - before;
        printf("%zu %d\n", made, (int)answer.result);
        fflush(stdout);
    }
    bliss_close(handle);
}
#endif

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "score") == 0) {
        score_lines(argv[2]);
    } else if (argc == 3 && strcmp(argv[1], "calls") == 0) {
        wrong_calls(argv[2]);
    } else if (argc == 3 && strcmp(argv[1], "explain") == 0) {
        explain_scores(argv[2]);
    } else if (argc == 3 && strcmp(argv[1], "unexplained") == 0) {
        unexplained(argv[2]);
    } else if (argc == 3 && strcmp(argv[1], "fork") == 0) {
        forked(argv[2]);
    } else if (argc == 3 && strcmp(argv[1], "threads") == 0) {
        threads(argv[2]);
#ifdef COUNT_ALLOCATIONS
    } else if (argc == 3 && strcmp(argv[1], "allocations") == 0) {
        count_allocations(argv[2]);
#endif
    } else {
        fprintf(stderr, "usage: client score|calls|explain|unexplained|fork|threads|allocations DIRECTORY\n");
        return 2;
    }
    return 0;
}
