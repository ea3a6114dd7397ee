#!/bin/bash
# Mount the box's volume; format it only when it is ours and blank.
#   in:   VOLUME (vol-...), OURS (yes when we created it)
#   out:  facts mount, free_gb, formatted, changed
: "${VOLUME:?volume.sh needs VOLUME}" "${OURS:?volume.sh needs OURS}"

# Names like nvme1n1 change from boot to boot; this link carries the volume's id.
device="$BOX_ROOT/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_${VOLUME/-/}"

wait_for_device() {
  local tries=0
  until [ -e "$device" ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 60 ] || fail unreachable "$VOLUME is attached but its device did not appear" "\`inv down\` and \`inv up\` attach it again"
    sleep 1
  done
}

# blkid -p exits with 2 when it finds nothing; a read error has another code and is not "blank".
blank() {
  local try code
  for try in 1 2 3; do
    code=0
    blkid -p -o value -s TYPE "$device" >/dev/null || code=$?
    [ "$code" -eq 2 ] || return 1
    [ "$try" -eq 3 ] || sleep 0.2
  done
  [ -z "$(wipefs -n "$device")" ]
}

format_if_ours() {
  blank || return 0
  [ "$OURS" = yes ] || fail refused "$VOLUME is blank, and we did not create it" "format it yourself: \`mkfs.ext4\` on the box"
  log "formatting $VOLUME"
  mkfs.ext4 -q "$device"
  formatted=yes
}

main() {
  formatted=no
  changed=no
  if ! mounted; then
    wait_for_device
    format_if_ours
    mkdir -p "$MOUNT"
    mount "$device" "$MOUNT"
    changed=yes
  fi
  mounted || fail unreachable "$MOUNT_PATH is not mounted" "\`inv deploy\` mounts it"
  mkdir -p "$MOUNT/runs" "$MOUNT/inputs" "$MOUNT/hub-cache" "$MOUNT/shipped"
  fact mount "$MOUNT_PATH"
  fact free_gb "$(df -Pk "$MOUNT/" | awk 'NR == 2 { printf "%d", $4 / 1048576 }')"
  fact formatted "$formatted"
  fact changed "$changed"
}

main "$@" </dev/null
