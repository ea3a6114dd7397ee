#!/bin/bash
# Mount the box's volume; format it only when we made it, it was never formatted, and every look at it finds nothing.
#   in:   VOLUME (vol-...), OURS (yes: we created it blank and have not formatted it yet), SIZE_GB (as AWS says), PATIENCE (seconds)
#   out:  facts mount, free_gb, formatted, changed
: "${VOLUME:?volume.sh needs VOLUME}" "${OURS:?volume.sh needs OURS}" "${SIZE_GB:?volume.sh needs SIZE_GB}" "${PATIENCE:?volume.sh needs PATIENCE}"

# Names like nvme1n1 change from boot to boot; this link carries the volume's id, which is the disk's serial number.
device="$BOX_ROOT/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_${VOLUME/-/}"

wait_for_device() {
  local tries=0
  until [ -e "$device" ]; do
    tries=$((tries + 1))
    [ "$tries" -le "$PATIENCE" ] || fail unreachable "$VOLUME is attached but its device did not appear" "\`inv down\` and \`inv up\` attach it again"
    sleep 1
  done
}

not_blank() { # WHY
  fail refused "$VOLUME is not formatted: $1" "nothing was changed. Look at it with \`blkid\` and \`wipefs -n\` on the box; \`inv down --purge\` makes room for a new volume"
}

# What the kernel itself says of the disk behind the link: another serial number means that the link is stale.
check_identity() {
  local serial
  serial="$BOX_ROOT/sys/class/block/$(basename "$1")/device/serial"
  [ ! -r "$serial" ] || [ "$(tr -d ' \n' <"$serial")" = "${VOLUME/-/}" ] ||
    fail refused "the disk behind $VOLUME's link says that it is $(cat "$serial")" "\`inv down\` and \`inv up\` attach it again"
}

# Sets `type` to the file system's, or to nothing on a disk without any. Nothing is guessed: what is neither ends here.
look() {
  local code=0
  type=$(blkid -p -o value -s TYPE "$device" 2>/dev/null) || code=$?
  case "$code $type" in
    "0 ext4" | "0 xfs" | "2 ") ;;
    "0 ") not_blank "it has a partition table" ;;
    "0 "*) not_blank "it holds $type, which is not ours" ;;
    *) not_blank "blkid cannot say what is on it (exit code $code)" ;;
  esac
}

# blkid and wipefs both say "nothing" of a disk that cannot be read at all: so it is read.
check_blank() {
  local bytes left
  left=$(wipefs -n "$device") || not_blank "wipefs cannot read it"
  [ -z "$left" ] || not_blank "wipefs finds a signature on it"
  bytes=$(dd if="$device" bs=1M count=4 status=none | wc -c) || not_blank "it cannot be read"
  [ "$bytes" -eq 4194304 ] || not_blank "it cannot be read"
  bytes=$(dd if="$device" bs=1M count=4 status=none | tr -d '\000' | wc -c) || not_blank "it cannot be read"
  [ "$bytes" -eq 0 ] || not_blank "its first megabytes are not empty"
}

# Three looks, and one more at what the link points to: a disk that came or went in between is another disk.
format() {
  local try disk
  [ "$OURS" = yes ] || not_blank "it is blank, and either we did not create it or it was formatted before"
  disk=$(readlink -f "$device")
  [ "$(blockdev --getsize64 "$device")" -eq $((SIZE_GB * 1073741824)) ] || not_blank "the disk has another size than its $SIZE_GB GB"
  for try in 1 2 3; do
    check_identity "$disk"
    look
    [ -z "$type" ] || not_blank "look $try found a file system where there was none"
    check_blank
    sleep 0.1
  done
  [ "$(readlink -f "$device")" = "$disk" ] || not_blank "another disk was attached in its place meanwhile"
  log "formatting $VOLUME"
  mkfs.ext4 -q "$device"
  formatted=yes
}

# nofail: without it a boot waits for a volume that is not there, and the agent never comes up.
note_in_fstab() {
  local line="$device $MOUNT_PATH ext4 defaults,nodev,nosuid,nofail,x-systemd.device-timeout=30s 0 2" table="$BOX_ROOT/etc/fstab"
  touch "$table"
  grep -Fqx "$line" "$table" || {
    awk -v place="$MOUNT_PATH" '$2 != place' "$table" >"$table.new"
    printf '%s\n' "$line" >>"$table.new"
    chmod 644 "$table.new"
    mv "$table.new" "$table"
  }
}

mount_it() {
  wait_for_device
  check_identity "$(readlink -f "$device")"
  look
  [ -n "$type" ] || format
  mkdir -p "$MOUNT"
  mount -o nodev,nosuid "$device" "$MOUNT"
  changed=yes
}

# The volume may have grown; where it has not, this does nothing.
grow() {
  local before
  before=$(df -Pk "$MOUNT/" | awk 'NR == 2 { print $2 }')
  case "$(blkid -p -o value -s TYPE "$device")" in
    ext4) resize2fs "$device" >&2 || fail unreachable "the file system of $VOLUME did not grow with it" "\`inv deploy\` tries again" ;;
    xfs) xfs_growfs "$MOUNT" >&2 || fail unreachable "the file system of $VOLUME did not grow with it" "\`inv deploy\` tries again" ;;
  esac
  [ "$before" = "$(df -Pk "$MOUNT/" | awk 'NR == 2 { print $2 }')" ] || changed=yes
}

# The scripts trust what is theirs on the volume; a container that was root, or another machine, may have put links there.
check_links() {
  local link
  link=$(find -P "$MOUNT/" -maxdepth 2 -type l -print -quit)
  [ -z "$link" ] || fail refused "on the volume ${link#"$BOX_ROOT"} is a link, and leads elsewhere" "nothing was changed. Look at it on the box, and remove it there"
}

main() {
  local source
  formatted=no
  changed=no
  mounted || mount_it
  source=$(findmnt --noheadings --output SOURCE --mountpoint "$MOUNT" | tail -n 1) || source=nothing
  [ "$(readlink -f "$source")" = "$(readlink -f "$device")" ] ||
    fail refused "$MOUNT_PATH on the box is $source, not $VOLUME" "\`inv down\` and \`inv up deploy\` mount the right one"
  grow
  check_links
  note_in_fstab
  mkdir -p "$MOUNT/runs" "$MOUNT/inputs" "$MOUNT/hub-cache" "$MOUNT/shipped"
  fact mount "$MOUNT_PATH"
  fact free_gb "$(df -Pk "$MOUNT/" | awk 'NR == 2 { printf "%d", $4 / 1048576 }')"
  fact formatted "$formatted"
  fact changed "$changed"
}

main "$@" </dev/null
