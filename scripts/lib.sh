# Shared by the scripts of this folder: where things are, what a machine must have, how it gets it. Sourced by bash, never run.

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

# What each Debian package is for, as "package:how to see that it is not needed".
BUILD_PACKAGES=(make:make gcc:gcc musl-tools:musl-gcc)
RUN_PACKAGES=(containerd:containerd busybox-static:busybox)
TEST_PACKAGES=(uidmap:newuidmap iproute2:ip strace:strace containernetworking-plugins:/usr/lib/cni/bridge qemu-system-x86:qemu-system-x86_64
  e2fsprogs:mkfs.ext4 fuse3:mount.fuse3 fuse-overlayfs:fuse-overlayfs)
TEST_PACKAGES+=(iptables:iptables procps:ps)

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

# Debian starts the service of a package that it installs. Nobody asked for a system-wide containerd here, so for the length of this
# one installation the packages' scripts are told not to: the way that Debian documents for it. A policy of the machine's own stays.
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

# install_packages ENTRY...: of the packages, those that are missing.
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

# with_a_recent_node COMMAND...: npm leaves out an optional package that the Node it runs on is too old for, and native parts of the
# tests are such packages. Debian 12's Node is: then our own is fetched first, by itself, and npm runs on that.
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

# The packages of package-lock.json, our Node among them: Debian's npm (or any other) only fetches. Again only when the lock changed.
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

# prepare ENTRY...: from whatever this machine has to a finished build.
prepare() {
  [ "$(uname -s)" = Linux ] || die "this needs Linux"
  install_packages "$@"
  install_modules
  build
}
