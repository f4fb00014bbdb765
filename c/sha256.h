/*
 * SHA-256 of one message in memory: the launcher needs it once per run, for the name of a socket.
 */
#ifndef SHA256_H
#define SHA256_H

#include <stddef.h>

/* Two hexadecimal digits for each of the 32 bytes, and the terminating NUL. */
#define SHA256_HEX_SIZE 65

void sha256_hex(const void *message, size_t size, char ret_hex[static SHA256_HEX_SIZE]);

#endif
