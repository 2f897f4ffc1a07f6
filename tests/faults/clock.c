/* Loaded before the C library: the wall clock, and by as many seconds more as the file named by CLOCK_OFFSET says. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t id, struct timespec *time)
{
	int result = syscall(SYS_clock_gettime, id, time);
	const char *path = getenv("CLOCK_OFFSET");
	if (result == 0 && id == CLOCK_REALTIME && path != NULL) {
		char text[32] = "";
		int file = open(path, O_RDONLY | O_CLOEXEC);
		if (file >= 0) {
			if (read(file, text, sizeof text - 1) > 0)
				time->tv_sec += atol(text);
			close(file);
		}
	}
	return result;
}
