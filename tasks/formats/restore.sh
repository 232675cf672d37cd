#!/bin/sh
# Restores a snapshot from cartridges with standard tools alone. README.txt beside it, and
# FORMAT.md of the program, say what it reads. Names of files are never taken apart here: lists of
# them, each name ended by a NUL byte, go to tar and xargs as they are.
set -u
LC_ALL=C
export LC_ALL
unset CDPATH
umask 077
STATE=.cartridge-restore

usage() {
    cat <<'HELP'
usage: sh restore.sh [--list] [--snapshot ID] [--only PATTERN] DEST [CARTRIDGE_DIR...]

Restores a snapshot into DEST/<source>/..., from this cartridge and those given;
asks for the others by their labels.

  --list           show the snapshots that this cartridge can restore, and end
  --snapshot ID    restore this one (else the newest)
  --only PATTERN   restore what matches a shell pattern like 'docs/*.txt', matched
                   against <source>/<path>; * goes across slashes, a folder
                   brings all below it, a hard link also its first name

Example:  sh /media/me/disk1/restore.sh --only 'docs/taxes' /tmp/back

Run it again with the same words to go on after an interruption.
Exit codes: 0 all is there; 1 something could not be written; 2 wrong usage;
4 a cartridge is missing; 5 something on a cartridge is damaged.
Needs sh, GNU tar, lz4, sha256sum and the basic tools of any Linux.
HELP
}

say() { printf '%s\n' "$*" >&2; }

fail() { # exit code, message
    code=$1
    shift
    say "restore.sh: $*"
    exit "$code"
}

# ---- the first half runs from the cartridge, and leaves it free to be taken away

choose_snapshot() { # folders of cartridges; sets recipe, and snapshot where none was asked for
    recipe=
    asked=$snapshot
    for folder; do
        for found in "$folder"/catalog/recipes/*.tar.lz4; do
            name=${found##*/}
            [ -n "$asked" ] || [ ! -f "$found" ] || snapshot=$(newer "$snapshot" "${name%.tar.lz4}")
        done
    done
    [ -n "$snapshot" ] || return
    [ -n "$asked" ] || tell_of_newer "$@"
    for folder; do
        found=catalog/recipes/$snapshot.tar.lz4
        if [ -z "$recipe" ] && [ -f "$folder/$found" ] && is_sound "$folder" "$found"; then
            recipe=$folder/$found
        fi
    done
}

tell_of_newer() { # folders of cartridges; a part of a manifest is no snapshot that could be restored
    for folder; do
        for found in "$folder"/catalog/manifests/*.parquet; do
            name=${found##*/}
            name=${name%.parquet}
            [ ! -f "$found" ] || [ "$(newer "$snapshot" "$name")" = "$snapshot" ] ||
                say "note: there is a newer snapshot, $name; a cartridge that was written later restores it"
        done
    done
}

newer() { printf '%s\n' "$@" | sort | tail -n 1; }

is_sound() { # folder of a cartridge, name of a file there
    wanted=$(grep "^[0-9a-f]*  $2\$" "$1/SHA256SUMS" 2>/dev/null)
    [ "${wanted%% *}" = "$(sum_of "$1/$2")" ] && return
    say "$1/$2 is damaged"
    recipe_damaged=yes
    return 1
}

sum_of() { # file
    sum=$(sha256sum <"$1" 2>/dev/null) || return 1
    printf '%s\n' "${sum%% *}"
}

list_snapshots() { # folder of a cartridge
    for found in "$1"/catalog/recipes/*.tar.lz4; do
        [ -f "$found" ] || continue
        # shellcheck disable=SC2030
        lz4 -dc <"$found" 2>/dev/null | tar -xOf - --occurrence=1 plan 2>/dev/null |
            while read -r word rest; do
                case $word in
                snapshot) id=$rest ;;
                profile) profile=$rest ;;
                entries) entries=$rest ;;
                bytes) printf '%s  %s  %s entries, %s bytes\n' "$id" "$profile" "$entries" "$rest" ;;
                esac
            done
    done
    for found in "$1"/catalog/manifests/*.parquet; do
        name=${found##*/}
        name=${name%.parquet}
        [ ! -f "$found" ] || [ -f "$1/catalog/recipes/$name.tar.lz4" ] ||
            say "$name  a part of it lies here; the cartridges written after this one restore it"
    done
}

prepare() { # destination; unpacks the recipe and narrows it down to what is wanted
    mkdir -p -- "$1" || fail 1 "cannot make the folder $1"
    dest=$(cd -- "$1" && pwd && echo .) && dest=${dest%??}
    state=$dest/$STATE
    task="$(sum_of "$recipe") $only"
    if [ -f "$state/ready" ] && [ "$(cat "$state/ready")" = "$task" ]; then
        say "going on with an unfinished restore"
        rm -rf "$state/work"
        return
    fi
    rm -rf "$state"
    mkdir -p "$state/work" "$state/need" "$state/known" "$state/large" "$state/gone" ||
        fail 1 "cannot write to $dest"
    lz4 -dc <"$recipe" | tar -x -C "$state" -f - || fail 1 "cannot unpack the recipe to $state"
    read -r word version <"$state/plan"
    case "$word $version" in
    "recipe 1" | "recipe 2") ;;
    *) fail 2 "the recipe is of a newer version: use the program" ;;
    esac
    cp "$here/restore.sh" "$state/restore.sh" || fail 1 "cannot write to $state"
    (cd "$state" && narrow && sort_plan) || fail 1 "cannot write to $state"
    if [ -n "$only" ] && (cd "$state" && is_empty); then
        rm -rf "$state"
        fail 2 "nothing in snapshot $snapshot matches $only"
    fi
    printf '%s' "$task" >"$state/ready"
}

narrow() { # leaves in all lists only what --only names
    [ -n "$only" ] || return 0
    cp folders folders.all
    [ ! -s links ] || wanted_links || return 1
    for list in folders others devices names/* redo/*; do
        case $list in
        *.tar | *.unordered) continue ;;
        esac
        [ ! -f "$list" ] || narrow_list "$list" || return 1
    done
    for list in moved/*.[0-9]; do
        [ -f "$list" ] || continue
        matching_pairs <"$list" >work/list && mv work/list "$list" || return 1
        old_names <"$list" >"$list.members" || return 1
    done
    for list in large/*.name; do
        [ -f "$list" ] || continue
        is_wanted "$list" || rm "$list" "${list%.name}.header"
    done
    for list in parts/*; do
        [ -f "$list" ] || continue
        while read -r number rest; do
            [ ! -f "large/$number.name" ] || echo "$number $rest"
        done <"$list" >work/list && mv work/list "$list"
    done
}

is_wanted() { # list of one name: whether it matches, or a hard link to it does
    [ -n "$({ matching <"$1"; [ ! -s firsts ] || sort -z "$1" firsts | uniq -zd; } | tr '\0' x)" ]
}

narrow_list() { # list
    matching <"$1" >work/list || return 1
    if [ -s firsts ]; then # hard links need the file that they are links to
        sort -z "$1" firsts | uniq -zd | sort -zu - work/list >work/more || return 1
        mv work/more work/list
    fi
    mv work/list "$1"
}

# shellcheck disable=SC2016
matching() { # reads a list, writes what matches
    xargs -0 sh -c 'for name; do
        case $name in $0 | $0/*) printf "%s\000" "$name" ;; esac
    done' "$only"
}

# shellcheck disable=SC2016
matching_pairs() { # reads new and old names in turn, writes those whose new name matches
    xargs -0 -x -n 16 sh -c 'while [ $# -gt 0 ]; do
        case $1 in $0 | $0/*) printf "%s\000%s\000" "$1" "$2" ;; esac
        shift 2
    done' "$only"
}

# shellcheck disable=SC2016
new_names() { # reads new and old names in turn
    xargs -0 -x -n 16 sh -c 'while [ $# -gt 0 ]; do printf "%s\000" "$1"; shift 2; done' sh
}

# shellcheck disable=SC2016
old_names() { # reads new and old names in turn
    xargs -0 -x -n 16 sh -c 'while [ $# -gt 0 ]; do printf "%s\000" "$2"; shift 2; done' sh
}

# shellcheck disable=SC2016
wanted_links() { # writes the names of wanted hard links, and those of the files they belong to
    xargs -0 -x -n 16 sh -c 'while [ $# -gt 0 ]; do
        case $1 in $0 | $0/*) printf "%s\000" "$1" ;; esac
        shift 2
    done' "$only" <links >links.wanted || return 1
    xargs -0 -x -n 16 sh -c 'while [ $# -gt 0 ]; do
        case $1 in $0 | $0/*) printf "%s\000" "$2" ;; esac
        shift 2
    done' "$only" <links | sort -zu >firsts
}

sort_plan() { # writes need/<serial>, the archives that are needed, and known/<uuid>, whose it is
    while read -r word one two three four five; do
        case $word in
        cartridge) printf '%s\n' "$one $three${four:+ $four}${five:+ $five}" >"known/$two" ;;
        archive)
            ! is_needed "$one" || printf '%s\n' "$one $three $four $five" >>"need/$two"
            ;;
        large) [ ! -f "large/$one.name" ] || echo "$one $two $three" >>large/list ;;
        esac
    done <plan
    [ ! -f need/0 ] || mv need/0 gone/0.missing # nobody knows where these lie
}

is_needed() { # number of an archive
    for list in "names/$1" "redo/$1" "parts/$1" "moved/$1".[0-9]; do
        [ ! -s "$list" ] || return 0
    done
    return 1
}

is_empty() { # whether --only has left nothing
    for list in folders others devices links.wanted need/* gone/*; do
        [ ! -s "$list" ] || return 1
    done
}

# ---- the second half runs from a copy in the state folder

unpack() { # options and lists for tar; reads a tar on standard input, leaves work/errors
    if [ "$keeps_attributes" ]; then
        set -- --xattrs --xattrs-include='*' "$@"
    fi
    tar -x -p --numeric-owner --no-recursion --warning=no-unknown-keyword --warning=no-timestamp \
        -C "$dest" -f - "$@" 2>work/errors || return
    cat work/errors >>remarks
}

complain() {
    head -n 5 work/errors >&2
    failed=yes
}

unpack_files() { # list of files with content, then the command that gives the tar
    list=$1
    shift
    order=--same-order
    [ ! -f "$list.unordered" ] || order=--no-wildcards
    "$@" | unpack $order --null -T "$state/$list" && return
    # A user's tar cannot write a read-only file that has attributes: it comes without them.
    if [ "$(id -u)" -ne 0 ] && [ "$keeps_attributes" ]; then
        keeps_attributes=
        (cd "$dest" && without_content) <"$list" >work/again
        "$@" | unpack $order --null -T "$state/work/again"
        ended=$?
        keeps_attributes=yes
        [ $ended -ne 0 ] || say "some read-only files have lost their extended attributes"
        return $ended
    fi
    return 1
}

# shellcheck disable=SC2016
without_content() { # reads a list, writes what is not there or is empty
    xargs -0 sh -c 'for name; do
        [ -s "$name" ] || printf "%s\000" "$name"
    done' sh
}

# shellcheck disable=SC2016
make_folders() {
    cd "$dest" || return 1
    xargs -0 sh -c 'for folder; do
        if [ -L "$folder" ] || { [ -e "$folder" ] && [ ! -d "$folder" ]; }; then
            rm -f -- "$folder"
        elif [ -d "$folder" ] && { [ ! -w "$folder" ] || [ ! -x "$folder" ]; }; then
            chmod u+rwx -- "$folder"
        fi
    done
    mkdir -p -- "$@"' sh <"$state/folders"
    made=$?
    cd "$state" && return $made
}

use_cartridge() { # folder; restores all that is needed from the cartridge there
    identify "$1" || return 1
    todo=need/$serial
    total=$(wc -l <"$todo")
    count=0
    say "$label: $((total)) archives, in $1"
    while read -r number bytes sum path; do
        count=$((count + 1))
        grep -qx "$number" finished 2>/dev/null && continue
        if [ ! -r "$1/CARTRIDGE.json" ]; then
            note_progress
            say "$label was taken away"
            return 1
        fi
        say "$label: archive $count of $((total)), $bytes bytes"
        restore_archive "$1/$path" "$number" "$sum" </dev/null
    done <"$todo"
    note_progress
    while read -r number rest; do # what could not be restored is tried again by the next run
        grep -qx "$number" finished 2>/dev/null || printf '%s\n' "$number $rest"
    done <"$todo" >"gone/$serial.again"
    [ -s "gone/$serial.again" ] || rm "gone/$serial.again"
    rm "$todo"
}

identify() { # folder; sets serial and label where a cartridge is there that is still needed
    uuid=$(sed -n 's/.*"uuid": *"\([0-9a-f-]*\)".*/\1/p' "$1/CARTRIDGE.json" 2>/dev/null)
    if [ -z "$uuid" ]; then
        say "there is no cartridge in $1"
        return 1
    fi
    if [ ! -f "known/$uuid" ]; then
        say "what is in $1 is a cartridge that is not needed"
        return 1
    fi
    read -r serial label <"known/$uuid"
    [ -f "need/$serial" ] && return
    say "$label, in $1, is not needed any more"
    return 1
}

restore_archive() { # archive, its number, its sum
    if [ "$(sum_of "$1")" != "$3" ]; then
        say "DAMAGED: ${1#"$folder"/} is not what was written"
        echo "$2" >>damaged
        return
    fi
    troubled=
    as_it_is "$1" "$2" || troubled=yes
    in_moved_folders "$1" "$2" || troubled=yes
    under_other_names "$1" "$2" || troubled=yes
    in_parts "$1" "$2" || troubled=yes
    if [ "$troubled" ]; then
        say "not all of ${1#"$folder"/} could be unpacked:"
        complain
        return
    fi
    echo "$2" >>fresh
    now=$(date +%s)
    [ $((now - noted)) -lt 15 ] || note_progress
}

note_progress() { # what is noted must be on the disk
    [ ! -f fresh ] || {
        sync
        cat fresh >>finished
        rm fresh
    }
    noted=$(date +%s)
}

as_it_is() { # archive, number
    [ -s "names/$2" ] || return 0
    unpack_files "names/$2" lz4 -dc "$1"
}

in_moved_folders() { # archive, number: tar changes the names of folders by the rules
    for list in "moved/$2".[0-9]; do
        [ -s "$list.members" ] || continue # without a name tar would take all
        lz4 -dc "$1" | unpack --same-order --null -T "$state/$list.members" \
            --transform "$(cat "$list.rules")" || return 1
    done
}

under_other_names() { # archive, number: cat makes a tar of other headers and the contents
    [ -s "redo/$2" ] || return 0
    rm -rf work/redo work/broken
    mkdir -p work/redo/stage && tar -x -C work/redo -f "redo/$2.tar" || return 1
    lz4 -dc <"$1" | tar -x --no-same-owner --no-same-permissions -m --no-recursion --same-order \
        --warning=no-unknown-keyword --warning=no-timestamp \
        -C work/redo/stage -f - --null -T "$state/work/redo/members" 2>work/errors || return 1
    chmod -R u+rwX work/redo/stage
    unpack_files "redo/$2" put_together || return 1
    rm -rf work/redo
    [ ! -f work/broken ]
}

put_together() {
    (cd work/redo/stage && xargs -0 cat -- <../pieces) || : >work/broken
}

in_parts() { # archive, number: stretches of large files go to their places
    [ -s "parts/$2" ] || return 0
    while read -r large offset frame skip length; do
        { dd bs=1 skip="$frame" count=0 2>/dev/null && lz4 -dc 2>/dev/null; } <"$1" |
            tail -c "+$((skip + 1))" 2>/dev/null |
            { dd bs=1 seek="$offset" count=0 2>/dev/null && head -c "$length"; } 1<>"large/$large" ||
            return 1
    done <"parts/$2"
}

ask_for_the_rest() {
    while first_needed; do
        printf 'Insert %s and type the folder where it is, or "none" if you do not have it [%s]: ' \
            "$label" "$folder" >&2
        if ! read -r answer; then
            say ""
            for list in need/*; do
                mv "$list" "gone/${list#need/}.missing"
            done
            return
        fi
        case $answer in
        none) mv "need/$serial" "gone/$serial.missing" && continue ;;
        ?*) folder=$answer ;;
        esac
        folder=$(from_here "$folder")
        use_cartridge "$folder" || say "waiting for $(waited_for)"
    done
}

from_here() { # folder, relative to where it all began
    case $1 in
    /*) printf '%s\n' "$1" ;;
    *) printf '%s\n' "$began/$1" ;;
    esac
}

first_needed() { # sets serial and label of the first cartridge that is still needed
    serial=$(still_needed | head -n 1)
    [ -n "$serial" ] || return 1
    label=$(label_of "$serial")
}

still_needed() { # writes the serials, smallest first
    for list in need/*; do
        [ ! -f "$list" ] || echo "${list#need/}"
    done | sort -n
}

label_of() { cat known/* | sed -n "s/^$1 //p"; }

waited_for() { # names all cartridges that are still needed
    still_needed | while read -r serial; do
        bytes=0
        while read -r _ size _; do
            bytes=$((bytes + size))
        done <"need/$serial"
        printf '%s (%s bytes)\n' "$(label_of "$serial")" "$bytes"
    done | tr '\n' ',' | sed 's/,$//; s/,/, /g'
}

finish_large() {
    [ -f large/list ] || return 0
    mkdir -p work/meta && unpack_templates || return 1
    while read -r number size sum; do
        [ ! -f "large/$number.finished" ] || continue
        is_lost "$number" && continue
        [ -z "$failed" ] || is_whole "$number" || continue
        dd if=/dev/null of="large/$number" bs=1 seek="$size" count=0 2>/dev/null
        if [ "$sum" != - ] && [ "$(sum_of "large/$number")" != "$sum" ]; then
            say "DAMAGED: $(shown <"large/$number.name") is not what was backed up"
            echo "$number" >>damaged.large
        elif place_large "$number" "$size" </dev/null; then
            : >"large/$number.finished"
        else
            complain
        fi
    done <large/list
}

unpack_templates() {
    where=$dest
    dest=$state/work/meta
    unpack <large.tar
    ended=$?
    dest=$where
    return $ended
}

is_lost() { # number of a large file: whether an archive that it needs was not to be had
    for archive in $(lost_archives); do
        ! grep -q "^$1 " "parts/$archive" 2>/dev/null || return 0
    done
    return 1
}

is_whole() { # number of a large file: whether all its archives are finished
    for list in parts/*; do
        ! grep -q "^$1 " "$list" || grep -qx "${list#parts/}" finished || return 1
    done
}

lost_archives() {
    lines_of damaged
    lost_to missing
}

lines_of() { [ ! -f "$1" ] || cat "$1"; }

lost_to() { # word; writes the numbers of archives
    for list in gone/*."$1"; do
        [ ! -f "$list" ] || cut -d ' ' -f 1 "$list"
    done
}

place_large() { # number, size: metadata, then the name; where cp cannot, tar makes a copy
    path=$(tr -d '\0' <"large/$1.name" && echo .) && path=${path%.}
    if cp --attributes-only --preserve=all "work/meta/$1" "large/$1" 2>/dev/null; then
        (cd "$dest" && mkdir -p -- "${path%/*}" && rm -f -- "$path" && mv -- "$STATE/large/$1" "$path")
    else
        { cat "large/$1.header" "large/$1" && head -c $(((512 - $2 % 512) % 512 + 1024)) /dev/zero; } |
            unpack && rm -f "large/$1"
    fi
}

make_the_rest() { # what needs no content; links when all files are there, folders at the end
    make_all others
    if [ "$(id -u)" -eq 0 ]; then
        make_all devices
    elif [ -s devices ]; then
        say "devices are left out: only root can make them"
    fi
    # A link to a file that could not be restored is told of at the end.
    make_all links "$(lost_archives)"
    settle_folders || complain
}

make_all() { # list; where there is a second word, failing is no surprise
    list=$1
    [ "$1" != links ] || [ -z "$only" ] || list=links.wanted
    [ -s "$list" ] || return 0
    if [ "$list" = links ]; then
        unpack <links.tar
    else
        unpack --same-order --null -T "$state/$list" <"$1.tar"
    fi || [ -n "${2:-}" ] || complain
}

# shellcheck disable=SC2016
settle_folders() {
    list=folders
    [ ! -f folders.all ] || list=folders.all
    (cd "$dest" && xargs -0 sh -c 'for folder; do
        if [ -d "$folder" ] && [ ! -L "$folder" ]; then printf "%s\000" "$folder"; fi
    done' sh) <"$list" >work/there
    [ ! -s work/there ] || unpack --same-order --null -T "$state/work/there" <folders.tar
}

report() { # lists what is not there; ends with the exit code
    code=0
    [ -z "$failed" ] || code=1
    missing=$(lost_to missing)
    damaged=$(lines_of damaged && lines_of damaged.large)
    [ -z "$missing" ] || code=4
    [ -z "$damaged" ] || code=5
    {
        lines_of damaged | while read -r number; do
            tell_lost damaged "$number"
        done
        lines_of damaged.large | while read -r number; do
            printf 'damaged: %s\n' "$(shown <"large/$number.name")"
        done
        for number in $missing; do
            tell_lost missing "$number"
        done
    } | once_each
    [ -z "$missing$damaged" ] || tell_links
    if [ -s remarks ]; then
        say "tar remarked, among others:"
        sort -u remarks | head -n 3 >&2
    fi
    if [ $code -eq 0 ]; then
        say "all is restored"
        cd / && rm -rf "$state"
    else
        say "not all is restored; run the same command to go on, or remove $state"
    fi
    exit $code
}

once_each() { # a file may have parts in several archives; what is damaged is told before
    LC_ALL=C sort -s -u -k 2
}

tell_lost() { # word, number of an archive
    for list in "names/$2" "redo/$2"; do
        [ ! -f "$list" ] || shown <"$list" | sed "s/^/$1: /"
    done
    for list in "moved/$2".[0-9]; do
        [ ! -s "$list" ] || new_names <"$list" | shown | sed "s/^/$1: /"
    done
    [ ! -f "parts/$2" ] || cut -d ' ' -f 1 "parts/$2" | sort -un | while read -r large; do
        printf '%s: %s\n' "$1" "$(shown <"large/$large.name")"
    done
}

# shellcheck disable=SC2016
tell_links() { # hard links to what is lost
    [ -s links ] || return 0
    (cd "$dest" && xargs -0 -x -n 16 sh -c 'while [ $# -gt 0 ]; do
        [ -e "$1" ] || [ -L "$1" ] || case $1 in
            $0 | $0/*) printf "%s\000" "$1" ;;
        esac
        shift 2
    done' "${only:-*}") <links | shown | sed 's/^/not there: /'
}

shown() { # reads names that end in NUL, writes lines that a terminal can show
    tr '\001-\037\177' '?' | tr '\0' '\n'
}

go_on() {
    cd "$state" || exit 1
    failed=
    noted=$(date +%s)
    rm -f damaged damaged.large remarks fresh work/broken
    mkdir -p work
    for list in gone/[1-9]*; do # they may be here now, or sound
        serial=${list#gone/}
        [ ! -f "$list" ] || mv "$list" "need/${serial%%.*}"
    done
    keeps_attributes=
    ! tar --help | grep -q -- --xattrs-include || keeps_attributes=yes
    [ ! -s folders ] || make_folders || fail 1 "cannot make folders in $dest"
    say "from cartridges: $(waited_for)"
    for folder; do
        folder=$(from_here "$folder")
        identify "$folder" 2>/dev/null && use_cartridge "$folder"
    done
    ask_for_the_rest
    finish_large || complain
    make_the_rest
    sync
    report
}

require_one_set() { # folders of cartridges; another set may have newer snapshots, of something else
    mine=$(set_of "$here")
    for folder; do
        other=$(set_of "$folder")
        [ -z "$mine" ] || [ -z "$other" ] || [ "$mine" = "$other" ] ||
            fail 2 "$folder holds a cartridge of the set '$other', and this one is of '$mine'"
    done
}

set_of() { # folder of a cartridge
    sed -n 's/.*"set": *"\([^"]*\)".*/\1/p' "$1/CARTRIDGE.json" 2>/dev/null
}

require_tools() {
    for tool in tar lz4 sha256sum xargs dd sed; do
        command -v $tool >/dev/null || fail 2 "$tool is needed and not installed"
    done
    tar --version | grep -q GNU || fail 2 "GNU tar is needed"
}

main() {
    snapshot=
    only=
    list=
    recipe_damaged=
    began=$(pwd)
    while [ $# -gt 0 ]; do
        case $1 in
        --help | -h) usage && exit 0 ;;
        --list) list=yes ;;
        --snapshot | --only)
            case ${2:-} in '') fail 2 "$1 needs a value; --help tells more" ;; esac
            if [ "$1" = --only ]; then only=${2%/}; else snapshot=$2; fi
            shift
            ;;
        --) shift && break ;;
        -?*) fail 2 "there is no option $1; --help tells more" ;;
        *) break ;;
        esac
        shift
    done
    require_tools
    here=$(cd -- "$(dirname -- "$0")" && pwd) || exit 1
    if [ "$list" ]; then
        list_snapshots "$here"
        exit
    fi
    [ $# -ge 1 ] || {
        usage >&2
        exit 2
    }
    where=$1
    shift
    for folder; do
        [ "${folder#-}" = "$folder" ] || fail 2 "options go before DEST: $folder"
        [ -f "$folder/CARTRIDGE.json" ] || say "there is no cartridge at $folder"
    done
    require_one_set "$@"
    choose_snapshot "$here" "$@"
    if [ -z "$recipe" ]; then
        [ -z "$recipe_damaged" ] || fail 5 "another cartridge of the set may have it whole"
        fail 2 "this cartridge cannot restore snapshot ${snapshot:-any}; --list shows which it can"
    fi
    prepare "$where"
    # The copy must not hold the cartridge: it may have to make room for the next one.
    exec sh "$state/restore.sh" --in "$dest" "$began" "$only" "$here" "$@"
}

if [ "${1:-}" = --in ]; then
    dest=$2
    state=$dest/$STATE
    began=$3
    only=$4
    shift 4
    go_on "$@"
else
    main "$@"
fi
