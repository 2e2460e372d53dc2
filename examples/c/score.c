/*
 * Scores one request with libblissffi:
 *
 *   cc -std=c11 score.c $(pkg-config --cflags --libs blissffi) -o score
 *   ./score /run/bliss 192.0.2.7 curl/8
 *
 * Prints the score (1 is certainly automated, 99 certainly human) and the model; or why there is no score, and then
 * the exit status is 1. docs/ffi.md is the guide; a server opens once and scores many requests.
 */
#include <bliss_ffi.h>

#include <stdio.h>
#include <string.h>
#include <time.h>

/* Prints what the last call with the handle reported. */
static void print_last_error(bliss_t *handle) {
    char message[512];
    bliss_last_error(handle, message, sizeof message);
    fprintf(stderr, "score: %s\n", message);
}

static int score(bliss_t *handle, const char *address, const char *user_agent) {
    /* Once per handle. Ids below 0 are errors. */
    int32_t ip = bliss_attribute_register(handle, "ip", strlen("ip"));
    int32_t agent = bliss_attribute_register(handle, "user_agent", strlen("user_agent"));
    if (ip < 0 || agent < 0) {
        print_last_error(handle);
        return 2;
    }

    /* Once per request. The strings are not copied: keep them until bliss_score has returned. */
    bliss_answer_t answer = {.size = sizeof answer};
    bliss_result_e result = bliss_request_clear(handle);
    if (result == BLISS_OK) {
        result = bliss_request_set_text(handle, ip, address, strlen(address));
    }
    if (result == BLISS_OK) {
        result = bliss_request_set_text(handle, agent, user_agent, strlen(user_agent));
    }
    if (result == BLISS_OK) {
        result = bliss_score(handle, NULL, 0, (uint32_t)time(NULL), &answer);
    }

    if (result != BLISS_OK) {
        print_last_error(handle);
        return result > 0 ? 1 : 2; /* above 0: unscored; below 0: a wrong call */
    }
    printf("%u %.*s/%.*s\n", answer.score, (int)answer.model_name.len, answer.model_name.data,
           (int)answer.model_version.len, answer.model_version.data);
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: score DIRECTORY ADDRESS USER_AGENT\n");
        return 2;
    }
    if (bliss_abi_version() != BLISS_ABI_VERSION) {
        fprintf(stderr, "score: libblissffi %s does not match the header\n", bliss_version());
        return 2;
    }
    bliss_t *handle;
    char error[512];
    if (bliss_open(argv[1], strlen(argv[1]), NULL, &handle, error, sizeof error) != BLISS_OK) {
        fprintf(stderr, "score: %s\n", error);
        return 2;
    }
    int status = score(handle, argv[2], argv[3]);
    bliss_close(handle);
    return status;
}
