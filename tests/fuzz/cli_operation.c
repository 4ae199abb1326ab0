/* Goal: the file of an operation, as an auditor gets it: any bytes are checked without harm, and are no proof. */
#include "cli/operation.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An authority that has never issued anything: the corpus cannot hold a proof. */
static const char authority[] = "-----BEGIN CERTIFICATE-----\n"
                                "MIIBiDCCAS+gAwIBAgIUCEBe+W+tWdMaFRSL0lzj+YwXiDAwCgYIKoZIzj0EAwIw\n"
                                "GTEXMBUGA1UEAwwOZnV6eiBhdXRob3JpdHkwIBcNMjYxMTI2MjExNjQzWhgPMjEy\n"
                                "NjExMDIyMTE2NDNaMBkxFzAVBgNVBAMMDmZ1enogYXV0aG9yaXR5MFkwEwYHKoZI\n"
                                "zj0CAQYIKoZIzj0DAQcDQgAEJg1uYeHqj5tF9DPHuYck34SkZ44x7CmUYi0SeMVH\n"
                                "NfoWd0KibFVIcoM+kDTANYewBES5Ur1u7rTMckefGbxNLaNTMFEwHQYDVR0OBBYE\n"
                                "FK/2Xp/OHGI7s2sLPonrH+yLs/+VMB8GA1UdIwQYMBaAFK/2Xp/OHGI7s2sLPonr\n"
                                "H+yLs/+VMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDRwAwRAIgKHn7NKI8\n"
                                "nYcQM98sJGSSaMXgZ9U3LZeeLC4M6HU3JpACIDCHbMcjBq5S7hZ6Y7qVM4vhHoWD\n"
                                "gNnRI17qo59Xaa8O\n"
                                "-----END CERTIFICATE-----\n";

static void seen(void *context, const char *identity, const char *time, const char *problem)
{
    (void)context;
    if (identity == NULL || time == NULL || problem == NULL)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kms_cli_operation_evidence evidence;
    const bool good =
        kms_cli_operation_check(kms_slice_of(data, size), kms_slice_str(authority), seen, NULL, &evidence);
    if (good != (evidence.problem[0] == '\0') || evidence.valid != 0 || (good && evidence.needed != 0))
        abort();
    return 0;
}
