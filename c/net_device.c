/*
 * Network devices. One moves into another network namespace: by rtnetlink, with the rights of the host. Invariant: all that can be known to
 * fail is known before the device is touched; what is saved is saved before the kernel forgets it; and moving and renaming is one request.
 */
#include "init.h"

#include <linux/rtnetlink.h>
#include <net/if.h>
#include <string.h>

#define MAX_ADDRESSES 64
#define MAX_INDEX_TRIES 256
#define KEPT_FLAGS (IFA_F_NODAD | IFA_F_NOPREFIXROUTE)

/* A request. Attributes are at most as long as an IPv6 address or an interface name, and never more than four. */
struct message {
    struct nlmsghdr head;
    uint8_t body[192];
};

static void put(struct message *m, const void *data, size_t size)
{
    if (NLMSG_ALIGN(m->head.nlmsg_len) + size > sizeof *m)
        return; /* cannot be, see above */
    memcpy((uint8_t *)m + NLMSG_ALIGN(m->head.nlmsg_len), data, size);
    m->head.nlmsg_len = (uint32_t)(NLMSG_ALIGN(m->head.nlmsg_len) + size);
}

static void put_attribute(struct message *m, uint16_t type, const void *data, size_t size)
{
    uint8_t bytes[RTA_LENGTH(IFNAMSIZ)] = { 0 };
    struct rtattr head = { .rta_len = (uint16_t)RTA_LENGTH(size), .rta_type = type };
    if (size > IFNAMSIZ)
        return;
    memcpy(bytes, &head, sizeof head);
    memcpy(bytes + RTA_LENGTH(0), data, size);
    put(m, bytes, RTA_LENGTH(size));
}

static struct message begin(uint16_t type, uint16_t flags, const void *data, size_t size)
{
    struct message m = { .head = { .nlmsg_len = NLMSG_LENGTH(0), .nlmsg_type = type, .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags) } };
    put(&m, data, size);
    return m;
}

/* Who can influence: a process with power over the container's network could write to our socket there; only the kernel is believed. */
static ssize_t receive(int fd, void *bytes, size_t size)
{
    struct sockaddr_nl from = { 0 };
    socklen_t length;
    ssize_t got;
    do {
        length = sizeof from;
        got = recvfrom(fd, bytes, size, 0, (struct sockaddr *)&from, &length);
    } while ((got < 0 && errno == EINTR) || (got >= 0 && (length != sizeof from || from.nl_pid != 0)));
    return got < 0 ? -errno : got;
}

static int error_of(const struct nlmsghdr *head)
{
    struct nlmsgerr error;
    if (head->nlmsg_len < NLMSG_LENGTH(sizeof error.error))
        return -EPROTO;
    memcpy(&error.error, NLMSG_DATA(head), sizeof error.error);
    return error.error;
}

static int request(int fd, struct message *m)
{
    union { struct nlmsghdr head; uint8_t bytes[2048]; } answer;
    m->head.nlmsg_flags |= NLM_F_ACK;
    if (send(fd, m, m->head.nlmsg_len, 0) < 0)
        return -errno;
    ssize_t size = receive(fd, &answer, sizeof answer);
    if (size < 0)
        return (int)size;
    return NLMSG_OK(&answer.head, (uint32_t)size) && answer.head.nlmsg_type == NLMSG_ERROR ? error_of(&answer.head) : -EPROTO;
}

/* One address of the dump, as the request that makes it again. Those that the kernel or a lease gave, or of a link only, are left out. */
static bool keep_address(const struct nlmsghdr *head, uint32_t index, struct message *ret)
{
    struct ifaddrmsg address;
    if (head->nlmsg_type != RTM_NEWADDR || head->nlmsg_len < NLMSG_LENGTH(sizeof address))
        return false;
    memcpy(&address, NLMSG_DATA(head), sizeof address);
    uint32_t flags = address.ifa_flags;
    struct ifaddrmsg again = { .ifa_family = address.ifa_family, .ifa_prefixlen = address.ifa_prefixlen, .ifa_scope = address.ifa_scope };
    *ret = begin(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &again, sizeof again);
    size_t left = head->nlmsg_len - NLMSG_LENGTH(sizeof address);
    for (const struct rtattr *attr = IFA_RTA(NLMSG_DATA(head)); RTA_OK(attr, left); attr = RTA_NEXT(attr, left)) {
        size_t size = RTA_PAYLOAD(attr);
        if (attr->rta_type == IFA_FLAGS && size == sizeof flags)
            memcpy(&flags, RTA_DATA(attr), sizeof flags);
        if (attr->rta_type == IFA_LOCAL || attr->rta_type == IFA_ADDRESS || attr->rta_type == IFA_BROADCAST)
            put_attribute(ret, attr->rta_type, RTA_DATA(attr), size);
    }
    bool kept = address.ifa_index == index && address.ifa_scope == RT_SCOPE_UNIVERSE && (flags & IFA_F_PERMANENT) != 0;
    flags &= KEPT_FLAGS;
    put_attribute(ret, IFA_FLAGS, &flags, sizeof flags);
    return kept;
}

/* With strict checks the kernel shows this device alone: while others come and go, a list of all may have an entry twice, or miss one. */
static int save_addresses(int fd, uint32_t index, struct message ret[MAX_ADDRESSES])
{
    union { struct nlmsghdr head; uint8_t bytes[16384]; } answer;
    struct ifaddrmsg wanted = { .ifa_family = AF_UNSPEC, .ifa_index = index };
    struct message m = begin(RTM_GETADDR, NLM_F_DUMP, &wanted, sizeof wanted);
    int count = 0;
    if (setsockopt(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &(int){ 1 }, sizeof(int)) < 0 || send(fd, &m, m.head.nlmsg_len, 0) < 0)
        return -errno;
    for (;;) {
        ssize_t size = receive(fd, &answer, sizeof answer);
        if (size <= 0)
            return size < 0 ? (int)size : -EPROTO;
        uint32_t left = (uint32_t)size;
        for (const struct nlmsghdr *head = &answer.head; NLMSG_OK(head, left); head = NLMSG_NEXT(head, left)) {
            struct message address;
            if (head->nlmsg_type == NLMSG_DONE)
                return count;
            if (head->nlmsg_type == NLMSG_ERROR)
                return error_of(head);
            if (!keep_address(head, index, &address))
                continue;
            if (count == MAX_ADDRESSES)
                return -E2BIG;
            ret[count++] = address;
        }
    }
}

/* The index that the device has in its new home: its old one, or if that is taken the next free one; so that we know it by that. */
static int move_link(int fd, uint32_t index, int target, const char *name, uint32_t *ret_index)
{
    int err = -EBUSY;
    for (uint32_t at = index; err == -EBUSY && at < index + MAX_INDEX_TRIES; at++) {
        struct message m = begin(RTM_NEWLINK, 0, &(struct ifinfomsg){ .ifi_index = (int)index }, sizeof(struct ifinfomsg));
        put_attribute(&m, IFLA_NET_NS_FD, &target, sizeof target);
        put_attribute(&m, IFLA_NEW_IFINDEX, &at, sizeof at);
        if (name[0] != 0)
            put_attribute(&m, IFLA_IFNAME, name, strlen(name) + 1);
        err = request(fd, &m);
        *ret_index = at;
    }
    return err;
}

/* Brings a link up or down. Any socket will do (netdevice(7)). */
static int set_link(int socket, const char *name, bool up)
{
    struct ifreq wanted = { 0 };
    memcpy(wanted.ifr_name, name, strnlen(name, IFNAMSIZ - 1));
    int err = sys_ioctl(socket, SIOCGIFFLAGS, &wanted);
    if (err < 0)
        return err;
    wanted.ifr_flags = (short)(up ? wanted.ifr_flags | IFF_UP : wanted.ifr_flags & ~IFF_UP);
    return sys_ioctl(socket, SIOCSIFFLAGS, &wanted);
}

/* A socket belongs to the network namespace that it was made in. */
static int open_socket(void)
{
    return sys_result(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
}

int op_loopback_up(struct ctx *c)
{
    cleanup_fd int fd = open_socket();
    int err = fd < 0 ? fd : set_link(fd, "lo", true);
    return err < 0 ? step(c, err, "bring up \"lo\"") : 0;
}

static int open_both(const struct ctx *c, int target, int *ret_home, int *ret_there)
{
    cleanup_fd int back = proc_open_ns(c, "self", "net");
    *ret_home = back < 0 ? back : open_socket();
    int err = *ret_home < 0 ? *ret_home : sys_setns(target, CLONE_NEWNET);
    if (err < 0)
        return err;
    *ret_there = open_socket();
    err = sys_setns(back, CLONE_NEWNET);
    return *ret_there < 0 ? *ret_there : err;
}

/* `doing` says what was being done when it returns an error. */
static int move_between(const struct op_net_device *op, int target, int home, int there, const char **doing)
{
    static struct message addresses[MAX_ADDRESSES];
    const char *name = op->new_name.len > 0 ? op->new_name.s : op->name.s;
    struct ifreq link = { 0 }, taken = { 0 };
    uint32_t index = 0;
    *doing = "";
    if (op->name.len >= IFNAMSIZ || op->new_name.len >= IFNAMSIZ)
        return -ENODEV;
    memcpy(link.ifr_name, op->name.s, op->name.len);
    memcpy(taken.ifr_name, name, strlen(name));
    int err = sys_ioctl(home, SIOCGIFINDEX, &link);
    if (err < 0)
        return err;
    *doing = ": its name in the container";
    if (sys_ioctl(there, SIOCGIFINDEX, &taken) == 0)
        return -EEXIST;
    *doing = ": read its addresses"; /* first: the kernel takes those of IPv6 from a link that goes down */
    int count = save_addresses(home, (uint32_t)link.ifr_ifindex, addresses);
    if (count < 0)
        return count;
    *doing = ": take it down";
    err = set_link(home, op->name.s, false);
    if (err < 0)
        return err;
    *doing = "";
    err = move_link(home, (uint32_t)link.ifr_ifindex, target, op->new_name.s, &index);
    for (int i = 0; err == 0 && i < count; i++) {
        *doing = ": restore its addresses";
        struct ifaddrmsg head;
        memcpy(&head, addresses[i].body, sizeof head);
        head.ifa_index = index;
        memcpy(addresses[i].body, &head, sizeof head);
        err = request(there, &addresses[i]);
    }
    if (err < 0)
        return err;
    *doing = ": bring it up";
    struct ifreq moved = { .ifr_ifindex = (int)index };
    err = sys_ioctl(there, SIOCGIFNAME, &moved);
    return err < 0 ? err : set_link(there, moved.ifr_name, true);
}

/*
 * Who can influence: the plan names the device; who has power over the container's network can change what is there. Privilege: the
 * host's over both networks. A device that was moved is not moved back when a later step fails: the namespace goes with the container.
 */
int move_device(struct ctx *c, const struct op_net_device *op, int target)
{
    cleanup_fd int home = -1;
    cleanup_fd int there = -1;
    const char *doing = ": enter the container's network namespace";
    int err = open_both(c, target, &home, &there);
    if (err == 0)
        err = move_between(op, target, home, there, &doing);
    return err < 0 ? step(c, err, "move network device \"%s\"%s", op->name.s, doing) : 0;
}
