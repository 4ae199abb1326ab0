/*
 * Purpose:   a directory with a self-signed certificate "CN=test", its key, a key that is not its own, and a text.
 * Owns:      the directory, from set-up to tear-down (of cmocka; *state is a struct pem_files *).
 * Threads:   main thread.
 * Never:     outlives the test.
 */
#ifndef KMS_TEST_PEM_FILES_H
#define KMS_TEST_PEM_FILES_H

struct pem_files {
    char directory[64];
    char certificate[96], key[96], other_key[96], text[96];
};

int pem_files_set_up(void **state);
int pem_files_tear_down(void **state);

#endif
