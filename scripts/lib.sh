# Shared by the scripts of this folder: where things are, what a machine must have, and how it gets it. Sourced by bash, never run.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
NODE=$ROOT/node_modules/node/bin/node

say() { printf '%s\n' "$*"; }

die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

need_root() {
  [ "$(id -u)" = 0 ] || die "this needs root, since it starts containers: try  sudo $0${*:+ $*}"
}

# The Debian packages, as "package:program". A package is installed where its program is missing.
BUILD_PACKAGES=(make:make gcc:gcc musl-tools:musl-gcc)
RUN_PACKAGES=(containerd:containerd busybox-static:busybox)
TEST_PACKAGES=(
  uidmap:newuidmap                                    # containers of a user without privileges
  iproute2:ip                                         # network namespaces and devices
  strace:strace                                       # which system calls really happen
  procps:ps                                           # runts ps
  zsh:zsh                                             # its completion
  fish:fish                                           # its completion
  containernetworking-plugins:/usr/lib/cni/bridge     # networks of pods and of nerdctl
  iptables:iptables                                   # the same: published ports of nerdctl
  tini:tini-static                                    # nerdctl run --init
  e2fsprogs:mkfs.ext4                                 # a root file system in a loop device
  fuse3:mount.fuse3 fuse-overlayfs:fuse-overlayfs     # a root file system that a mount program makes
  qemu-system-x86:qemu-system-x86_64                  # a virtual machine monitor as the container's process
)
# Go is no package here: nerdctl, crictl and the kubelet need 1.21 or newer, and Debian 12 has 1.19 (need_go).

missing_packages() {
  local entry
  for entry in "$@"; do
    have "${entry#*:}" || printf '%s\n' "${entry%%:*}"
  done
  if [[ " $* " == *" gcc:gcc "* ]]; then
    [ -e /usr/include/stdio.h ] || echo libc6-dev
    [ -e /usr/include/linux/openat2.h ] || echo linux-libc-dev
    have npm || echo npm
  fi
  ldconfig -p 2>/dev/null | grep -q 'libseccomp\.so\.2' || echo libseccomp2
}

# Debian starts the service of a package that it installs. These scripts want no system-wide containerd.
# So a policy-rc.d, which Debian documents for this, forbids it during this one installation. A policy of the machine's own stays.
apt_install() {
  local policy=/usr/sbin/policy-rc.d ours=
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && ours=$policy
  fi
  local status=0
  DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "$@" || status=$?
  [ -z "$ours" ] || rm -f "$ours"
  return "$status"
}

# install_packages ENTRY...: installs those packages that are missing.
install_packages() {
  local missing
  mapfile -t missing < <(missing_packages "$@")
  [ ${#missing[@]} -gt 0 ] || return 0
  have apt-get || die "please install: ${missing[*]} (this machine has no apt-get)"
  [ "$(id -u)" = 0 ] || die "these Debian packages are missing: ${missing[*]}; try  sudo apt-get install ${missing[*]}"
  say "installing ${missing[*]}"
  {
    [ -n "$(find /var/lib/apt/lists -name '*_Packages*' -print -quit 2>/dev/null)" ] || apt-get -q update
    apt_install "${missing[@]}" || { apt-get -q update && apt_install "${missing[@]}"; }
  } >"${TMPDIR:-/tmp}/containerd-shim-ts-apt.log" 2>&1 ||
    die "cannot install ${missing[*]}: see ${TMPDIR:-/tmp}/containerd-shim-ts-apt.log"
}

# with_a_recent_node COMMAND...: runs npm on a Node that is new enough.
# npm leaves out an optional package if its own Node is too old for it, and native parts of the tests are such packages.
# Debian 12's Node is too old. Then our own Node is fetched first, and npm runs on that.
with_a_recent_node() {
  local major version boot status=0
  major=$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)
  if [ "$major" -ge 20 ]; then
    "$@"
    return
  fi
  version=$(sed -n 's/^ *"node": "\([0-9.]*\)".*/\1/p' package.json)
  boot=$(mktemp -d)
  npm install --prefix "$boot" --no-audit --no-fund --loglevel=error --no-save "node@$version" >/dev/null &&
    NODE_NO_WARNINGS=1 PATH=$boot/node_modules/node/bin:$PATH "$@" || status=$?
  rm -rf "$boot"
  return "$status"
}

# Fetches the packages of package-lock.json, our Node among them, if the lock has changed since the last time. Any npm will do.
install_modules() {
  local stamp=$ROOT/node_modules/.installed-lock
  cmp -s "$ROOT/package-lock.json" "$stamp" && [ -x "$NODE" ] && return 0
  if [ -x "$NODE" ] && (cd "$ROOT" && npm ls >/dev/null 2>&1); then
    : # a developer ran npm install here: what is there fits
  else
    say "fetching packages (npm ci)"
    (cd "$ROOT" && with_a_recent_node npm ci --no-audit --no-fund --loglevel=error) || die "npm ci failed"
    [ -x "$NODE" ] || die "npm ci did not bring our own Node: $NODE is missing"
  fi
  cp "$ROOT/package-lock.json" "$stamp"
}

build() {
  PATH=$ROOT/node_modules/.bin:$PATH "$NODE" "$ROOT/scripts/build.ts" || die "the build failed"
}

# need_go WHAT: a Go that can build WHAT. From 1.21 on, Go fetches the release that a module asks for.
need_go() {
  local minor
  minor=$(go env GOVERSION 2>/dev/null | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
  [ "${minor:-0}" -ge 21 ] || die "cannot build $1: Go 1.21 or newer is missing (Debian 13 and newer: package golang-go)"
}

# prepare ENTRY...: makes a finished build on any Debian machine.
prepare() {
  [ "$(uname -s)" = Linux ] || die "this needs Linux"
  install_packages "$@"
  install_modules
  build
}
