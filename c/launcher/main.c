/*
 * containerd-shim-ts-v2 is the program that containerd executes. It does at once what needs no Node: the
 * socket and its address, the end of a cleanly deleted container, the description of the runtime. For
 * the rest it starts Node:
 *
 *     containerd ── start ──> launcher: socket, `address` file, Node as the shim; prints the address
 *                ── delete ─> launcher: prints the record that the shim left, or becomes Node
 *                ── -info, -v ─> launcher: prints files of the lib folder
 *
 * This file holds the command line, in the style of Go's flag package, and the end of a failed run.
 */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

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

static struct settings settings;
static const char *ignored; /* values of flags that other shims know */

static const struct flag {
    const char *name;
    const char **value; /* NULL: a switch */
    bool *on;
} FLAGS[] = {
    {"namespace", &settings.namespace, NULL}, {"id", &settings.id, NULL},
    {"address", &settings.address, NULL},     {"bundle", &settings.bundle, NULL},
    {"publish-binary", &ignored, NULL},       {"socket", &ignored, NULL},
    {"debug-socket", &ignored, NULL},         {"debug", NULL, &settings.debug},
    {"info", NULL, &settings.info},           {"v", NULL, &settings.version},
    {"version", NULL, &settings.version},     {"h", NULL, &settings.help},
    {"help", NULL, &settings.help},
};

struct made made;
static int failure_status = LAUNCH_EXIT_USAGE; /* until the command line has been parsed */

/* containerd shows the text to its client, so it is one line, whatever it quotes. */
void die(int errnum, const char *format, ...)
{
    char line[8192];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(line, sizeof line, format, args);
    va_end(args);
    for (char *at = line; *at; at++) {
        if ((unsigned char)*at < ' ' || *at == 0x7f)
            *at = '?';
    }
    if (made.shim > 0) {
        (void)kill(made.shim, SIGKILL);
        (void)waitpid(made.shim, NULL, 0);
    }
    if (made.socket) {
        (void)unlink(made.socket);
        (void)unlink(BUNDLE_FILE_ADDRESS);
    }
    /* last, because the reader may block this write */
    (void)dprintf(STDERR_FILENO, "%s: %s%s%s\n", PROGRAM, line, errnum != 0 ? ": " : "",
                  errnum != 0 ? strerror(errnum) : "");
    exit(failure_status);
}

static bool is_alphanumeric(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* containerd's grammar: letters and digits, with one `.`, `_` or `-` between two of them. */
static bool is_identifier(const char *word)
{
    size_t size = strlen(word);
    for (size_t i = 0; i < size; i++) {
        if (!is_alphanumeric(word[i]) &&
            (!strchr("._-", word[i]) || i == 0 || !is_alphanumeric(word[i - 1]) || i + 1 == size))
            return false;
    }
    return size > 0 && size <= LIMIT_IDENTIFIER_MAX;
}

void check_identity(const struct settings *given, const char *action)
{
    const char *id = given->id ? given->id : "", *namespace = given->namespace ? given->namespace : "";
    if (!is_identifier(id))
        die(0, "cannot %s: -id \"%s\" is not a container id", action, id);
    if (!is_identifier(namespace))
        die(0, "cannot %s: -namespace \"%s\" is not a namespace", action, namespace);
}

static const struct flag *find_flag(const char *name, size_t size)
{
    for (size_t i = 0; i < sizeof FLAGS / sizeof FLAGS[0]; i++) {
        if (strlen(FLAGS[i].name) == size && memcmp(FLAGS[i].name, name, size) == 0)
            return &FLAGS[i];
    }
    return NULL;
}

/* The spellings that Go's strconv.ParseBool knows. */
static bool parse_bool(const char *word, const char *flag)
{
    static const char *const yes[] = {"1", "t", "T", "true", "TRUE", "True"};
    static const char *const no[] = {"0", "f", "F", "false", "FALSE", "False"};
    for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++) {
        if (strcmp(word, yes[i]) == 0)
            return true;
        if (strcmp(word, no[i]) == 0)
            return false;
    }
    die(0, "cannot understand the flag \"%s\": neither true nor false", flag);
}

static bool is_action(const char *word)
{
    return strcmp(word, "start") == 0 || strcmp(word, "delete") == 0;
}

/* Returns how many words of argv the flag at argv[0] used. */
static int parse_flag(char *const *argv)
{
    const char *name = argv[0] + (argv[0][1] == '-' ? 2 : 1);
    size_t size = strcspn(name, "=");
    const char *value = name[size] == '=' ? name + size + 1 : NULL;
    const struct flag *flag = find_flag(name, size);
    if (size == 0)
        die(0, "cannot understand the flag \"%s\"", argv[0]);
    /*
     * A newer daemon may pass unknown flags; the value after one must not be taken for the action.
     */
    if (!flag)
        return value || !argv[1] || argv[1][0] == '-' || is_action(argv[1]) ? 1 : 2;
    if (!flag->value) {
        *flag->on = !value || parse_bool(value, argv[0]);
        return 1;
    }
    if (!value && !argv[1])
        die(0, "cannot understand the flag \"%s\": its value is missing", argv[0]);
    *flag->value = value ? value : argv[1];
    return value ? 1 : 2;
}

/*
 * Flags end at the first word without a dash, or at "--". What follows the action is ignored.
 * Returns the action, or NULL for -h, -v and -info.
 */
static const char *parse_arguments(char *const *argv)
{
    while (*argv && (*argv)[0] == '-' && (*argv)[1] != '\0' && strcmp(*argv, "--") != 0)
        argv += parse_flag(argv);
    if (*argv && strcmp(*argv, "--") == 0)
        argv++;
    if (settings.help || settings.version || settings.info)
        return NULL;
    if (!*argv)
        die(0, "cannot tell what to do: start, delete, -info, -v or -h is needed");
    if (!is_action(*argv))
        die(0, "cannot do \"%s\": the actions are start and delete", *argv);
    return *argv;
}

/*
 * Opens the missing ones of fds 0 to 3, so that no file opened later takes their place. Fd 1 is
 * opened read-only, so that printing an answer without a reader fails.
 */
static void fill_fds(void)
{
    for (int fd = 0; fd <= FD_LISTEN; fd++) {
        /* open returns the lowest free number, which is this one */
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDERR_FILENO ? O_WRONLY : O_RDONLY) != fd)
            die(errno, "cannot open \"/dev/null\"");
    }
}

int main(int argc, char **argv)
{
    const char *action;
    fill_fds();
    action = parse_arguments(argv + (argc > 0));
    failure_status = LAUNCH_EXIT_FAILURE;
    if (settings.help)
        print("the help", HELP, sizeof HELP - 1);
    else if (settings.version)
        launcher_version();
    else if (settings.info)
        launcher_info();
    else if (strcmp(action, "start") == 0)
        launcher_start(&settings);
    else
        launcher_delete(&settings);
    return 0;
}
