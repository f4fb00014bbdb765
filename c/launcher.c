/*
 * containerd-shim-ts-v2: the program that containerd executes. It does at once what needs no Node (the socket and its
 * address, the end of a container that was deleted cleanly, the runtime's description) and starts Node for the rest:
 *
 *     containerd ── start ──> launcher: socket, `address` file, Node as the shim process; prints the address, ends
 *                ── delete ─> launcher: prints the record that the shim left, or becomes Node
 *                ── -info, -v ─> launcher: prints files of the lib folder
 *
 * This file is the command line, in the style of Go's flag package, and the single place that prints errors.
 */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define EXIT_FAILED 1
#define EXIT_USAGE 2

static const char HELP[] =
    "usage: " PROGRAM " -namespace NAMESPACE -id ID -address SOCKET [-bundle FOLDER] [-debug] start | delete\n"
    "       " PROGRAM " -info | -v | -h\n"
    "\n"
    "A containerd runtime shim. containerd finds it in its PATH and runs it; there is no need to run it by hand:\n"
    "\n"
    "    ctr run --runtime io.containerd.ts.v2 IMAGE ID\n"
    "\n"
    "start           in the bundle folder: start the shim of a container and print the address of its socket\n"
    "delete          remove what is left of a container and print its exit as a protobuf DeleteResponse\n"
    "-namespace, -id the container\n"
    "-address        path of containerd's gRPC socket\n"
    "-bundle         the container's bundle folder, for delete\n"
    "-debug          let the shim write debug messages to the log; containerd says so when its own level is debug\n"
    "-info           print a protobuf RuntimeInfo with the features of the runtime; options are read from stdin\n"
    "-v              print the version\n"
    "-h              print this text\n"
    "\n"
    "Flags take one dash or two, and their value as the next word or after '='. Unknown flags are ignored.\n"
    "\n"
    "A shim at work is a process of this name with the -namespace and the -id of its container, and logs to containerd's\n"
    "log. SIGUSR1 lets it write the file shim-report in the bundle, and the same to the log: calls in progress, memory,\n"
    "open files, processes. SIGTERM ends it in order, and containerd then ends its container. Without containerd,\n"
    "`runts --root /run/containerd/ts/NAMESPACE list` shows the containers.\n";

enum flag { FLAG_UNKNOWN = 0, FLAG_NAMESPACE, FLAG_ID, FLAG_ADDRESS, FLAG_BUNDLE, FLAG_UNUSED, FLAG_DEBUG, FLAG_INFO,
            FLAG_VERSION, FLAG_HELP };

static const struct {
    const char *name;
    enum flag flag;
} FLAGS[] = {
    {"namespace", FLAG_NAMESPACE}, {"id", FLAG_ID},           {"address", FLAG_ADDRESS},      {"bundle", FLAG_BUNDLE},
    {"publish-binary", FLAG_UNUSED}, {"socket", FLAG_UNUSED}, {"debug-socket", FLAG_UNUSED},  {"debug", FLAG_DEBUG},
    {"info", FLAG_INFO},           {"v", FLAG_VERSION},       {"version", FLAG_VERSION},      {"h", FLAG_HELP},
    {"help", FLAG_HELP},
};

static enum flag find_flag(const char *name, size_t size)
{
    for (size_t i = 0; i < sizeof(FLAGS) / sizeof(FLAGS[0]); i++) {
        if (strlen(FLAGS[i].name) == size && memcmp(FLAGS[i].name, name, size) == 0)
            return FLAGS[i].flag;
    }
    return FLAG_UNKNOWN;
}

static enum action find_action(const char *word)
{
    if (strcmp(word, "start") == 0)
        return ACTION_START;
    return strcmp(word, "delete") == 0 ? ACTION_DELETE : ACTION_NONE;
}

static bool is_switch(enum flag flag)
{
    return flag == FLAG_DEBUG || flag == FLAG_INFO || flag == FLAG_VERSION || flag == FLAG_HELP;
}

/* The spellings that Go's strconv.ParseBool knows. */
static int parse_bool(const char *text, bool *ret)
{
    static const char *const yes[] = {"1", "t", "T", "true", "TRUE", "True"};
    static const char *const no[] = {"0", "f", "F", "false", "FALSE", "False"};

    for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++) {
        if (strcmp(text, yes[i]) == 0 || strcmp(text, no[i]) == 0) {
            *ret = strcmp(text, yes[i]) == 0;
            return 0;
        }
    }
    return -1;
}

static void set_switch(struct settings *settings, enum flag flag, bool value)
{
    if (flag == FLAG_DEBUG)
        settings->debug = value;
    else if (flag == FLAG_INFO)
        settings->info = value;
    else if (flag == FLAG_VERSION)
        settings->version = value;
    else
        settings->help = value;
}

static void set_value(struct settings *settings, enum flag flag, const char *value)
{
    if (flag == FLAG_NAMESPACE)
        settings->namespace = value;
    else if (flag == FLAG_ID)
        settings->id = value;
    else if (flag == FLAG_ADDRESS)
        settings->address = value;
    else if (flag == FLAG_BUNDLE)
        settings->bundle = value;
    /* the rest is for shims that serve in this program or call containerd's */
}

/* A newer daemon may pass flags that we do not know: a value after one must not be taken for the action. */
static bool looks_like_value(const char *word)
{
    return word && word[0] != '-' && find_action(word) == ACTION_NONE;
}

/* Returns how many words of argv the flag at argv[0] used, or -1. */
static int parse_flag(struct settings *settings, char *const *argv, struct failure *failure)
{
    const char *name = argv[0] + (argv[0][1] == '-' ? 2 : 1);
    size_t size = strcspn(name, "=");
    const char *value = name[size] == '=' ? name + size + 1 : NULL;
    enum flag flag = find_flag(name, size);
    bool on = true;

    if (size == 0)
        return fail(failure, 0, "cannot understand the flag \"%s\"", argv[0]);
    if (flag == FLAG_UNKNOWN)
        return value || !looks_like_value(argv[1]) ? 1 : 2;
    if (is_switch(flag)) {
        if (value && parse_bool(value, &on) < 0)
            return fail(failure, 0, "cannot understand the flag \"%s\": neither true nor false", argv[0]);
        set_switch(settings, flag, on);
        return 1;
    }
    if (!value && !argv[1])
        return fail(failure, 0, "cannot understand the flag \"%s\": its value is missing", argv[0]);
    set_value(settings, flag, value ? value : argv[1]);
    return value ? 1 : 2;
}

/* Flags end at the first word that is none, or at "--"; what follows the action is nobody's. */
static int parse_arguments(struct settings *settings, char *const *argv, struct failure *failure)
{
    char *const *at = argv;

    while (*at && (*at)[0] == '-' && (*at)[1] != '\0' && strcmp(*at, "--") != 0) {
        int used = parse_flag(settings, at, failure);

        if (used < 0)
            return -1;
        at += used;
    }
    if (*at && strcmp(*at, "--") == 0)
        at++;
    if (settings->help || settings->version || settings->info)
        return 0;
    if (!*at)
        return fail(failure, 0, "cannot tell what to do: start, delete, -info, -v or -h is needed");
    settings->action = find_action(*at);
    if (settings->action == ACTION_NONE)
        return fail(failure, 0, "cannot do \"%s\": the actions are start and delete", *at);
    return 0;
}

static int print_help(struct failure *failure)
{
    if (write_whole(STDOUT_FILENO, HELP, sizeof(HELP) - 1) < 0)
        return fail(failure, errno, "cannot print the help");
    return 0;
}

static int run(struct settings *settings, struct failure *failure)
{
    if (settings->help)
        return print_help(failure);
    if (settings->version)
        return launcher_version(failure);
    if (settings->info)
        return launcher_info(failure);
    return settings->action == ACTION_START ? launcher_start(settings, failure) : launcher_delete(settings, failure);
}

/*
 * A file opened later must not land on 0, 1 or 2. The missing ones are opened the wrong way round for 1, so that
 * printing an answer that nobody can read fails instead of seeming to work.
 */
static bool fill_standard_fds(void)
{
    static const int modes[] = {O_RDONLY, O_RDONLY, O_WRONLY};

    for (int fd = 0; fd <= STDERR_FILENO; fd++) {
        /* open returns the lowest free number, which is this one */
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", modes[fd]) != fd)
            return false;
    }
    return true;
}

/* containerd shows this text to its client: one line, whatever was quoted in it. */
static void print_failure(struct failure *failure)
{
    for (char *at = failure->text; *at; at++) {
        if ((unsigned char)*at < ' ' || *at == 0x7f)
            *at = '?';
    }
    (void)dprintf(STDERR_FILENO, "%s: %s\n", PROGRAM, failure->text);
}

int main(int argc, char **argv)
{
    struct settings settings = {0};
    struct failure failure;

    if (!fill_standard_fds())
        return EXIT_FAILED;
    if (parse_arguments(&settings, argv + (argc > 0), &failure) < 0) {
        print_failure(&failure);
        return EXIT_USAGE;
    }
    if (run(&settings, &failure) < 0) {
        print_failure(&failure);
        return EXIT_FAILED;
    }
    return 0;
}
