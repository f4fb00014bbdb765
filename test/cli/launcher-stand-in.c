/*
 * Stands in for Node where only the launcher is tested. It writes down all that the launcher gave it, as "key value"
 * lines in a file `record` beside itself: arguments, environment, open files, signals, umask, score and cgroups. Then
 * it answers `delete`, or stays like a shim that does not serve yet. In that case the launcher's socket goes on
 * listening.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

/* A test that dies must not leave us behind for longer than this. */
#define LIFETIME_SECONDS 60

static void copy_lines(FILE *record, const char *key, const char *path)
{
    char line[4096];
    FILE *file = fopen(path, "re");

    while (file && fgets(line, sizeof(line), file))
        fprintf(record, "%s %s%s", key, line, strchr(line, '\n') ? "" : "\n");
    if (file)
        fclose(file);
}

static void write_files(FILE *record)
{
    DIR *dir = opendir("/proc/self/fd");

    for (struct dirent *entry = dir ? readdir(dir) : NULL; entry; entry = readdir(dir)) {
        char target[PATH_MAX];
        ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);

        if (n < 0 || atoi(entry->d_name) == dirfd(dir) || atoi(entry->d_name) == fileno(record))
            continue;
        target[n] = '\0';
        fprintf(record, "fd %s %s\n", entry->d_name, target);
    }
    if (dir)
        closedir(dir);
}

int main(int argc, char **argv)
{
    char self[PATH_MAX - 16] = "", path[PATH_MAX], temporary[PATH_MAX], cwd[PATH_MAX];
    int listening = 0;
    socklen_t size = sizeof(listening);
    FILE *record;
    mode_t mask = umask(022);

    if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
        return 99;
    *strrchr(self, '/') = '\0';
    snprintf(path, sizeof(path), "%s/record", self);
    snprintf(temporary, sizeof(temporary), "%s/record.tmp", self);
    record = fopen(temporary, "we");
    if (!record)
        return 99;

    for (int i = 0; i < argc; i++)
        fprintf(record, "arg %s\n", argv[i]);
    for (char **variable = environ; *variable; variable++)
        fprintf(record, "env %s\n", *variable);
    write_files(record);
    fprintf(record, "pid %d\npgrp %d\numask %o\n", getpid(), getpgrp(), mask);
    fprintf(record, "cwd %s\n", getcwd(cwd, sizeof(cwd)) ? cwd : "?");
    if (getsockopt(3, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0)
        fprintf(record, "listening %d\n", listening);
    copy_lines(record, "status", "/proc/self/status");
    copy_lines(record, "oom", "/proc/self/oom_score_adj");
    copy_lines(record, "cgroup", "/proc/self/cgroup");
    if (fclose(record) != 0 || rename(temporary, path) != 0)
        return 99;

    if (strcmp(argv[argc - 1], "delete") == 0) {
        puts("the stand-in's answer");
        return 0;
    }
    alarm(LIFETIME_SECONDS);
    pause();
    return 0;
}
