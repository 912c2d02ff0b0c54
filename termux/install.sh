#!/data/data/com.termux/files/usr/bin/sh
# Makes a phone ready to train: Termux's packages, ondevice in .venv, the commands ondevice and ondevice-tui, scripts that
# bring runs back, buttons for the home screen; ends in `ondevice doctor`. Asks nothing; repeat it as often as you like, it goes on where it was interrupted.
#   sh termux/install.sh                       all of it
#   sh termux/install.sh --dry-run             only says what it would do, and why
#   sh termux/install.sh --with-sentencepiece  also builds sentencepiece from source: clang, cmake, half an hour
#   sh termux/install.sh --scripts-only        only the scripts, for an ondevice that is installed already
#   sh termux/install.sh --remove              takes the scripts away; packages, ondevice and runs stay
set -eu
unset CDPATH
job=7331
here=$(cd "$(dirname "$0")" && pwd -P)
root=$(cd "$here/.." && pwd -P)

say() { printf 'install: %s\n' "$*"; }

die() {
    printf 'install: %s\n' "$*" >&2
    exit 1
}

# step WHAT-AND-WHY COMMAND...: says it, then does it; with --dry-run it only says.
step() {
    say "$1"
    shift
    if [ "$dry" = yes ]; then
        printf '         would run: %s\n' "$*"
    else
        "$@"
    fi
}

# --- what this phone must be ----------------------------------------------------------------------------------------

check_place() {
    case ${PREFIX:-} in
        */com.termux/files/usr) ;;
        *) die "this is for Termux on Android; elsewhere run \`sh tools/setup\`, and \`ondevice watch RUN --restart\` brings runs back" ;;
    esac
    settings=$HOME/.termux/ondevice
    boot=$HOME/.termux/boot/ondevice-resume
    shortcuts=$HOME/.shortcuts
}

check_phone() {
    case $(uname -m)-$(dpkg --print-architecture 2>/dev/null) in
        *-arm | *-i686 | arm*l-* | i?86-*)
            die "PyTorch needs a 64-bit system, and this Termux is not one; a 64-bit phone takes the 64-bit Termux" ;;
    esac
    case $root/ in
        /sdcard/* | /storage/* | "$HOME/storage/"*)
            die "$root lies on shared storage, which has neither links nor locks; move it below $HOME and repeat this" ;;
    esac
    case ${TERMUX_VERSION:-} in
        googleplay.*) say "NOTE: this Termux is the Play Store build, another fork with other packages; if torch is missing or old, install Termux from F-Droid or GitHub instead" ;;
    esac
    free_mb=$(($(df -Pk "$HOME" | awk 'NR == 2 { print $4 }') / 1024))
    if [ "$free_mb" -lt 2048 ]; then
        say "NOTE: $free_mb MB are free; packages need about 1500 MB, and each checkpoint as much as the model three times"
    fi
}

# --- sentencepiece ----------------------------------------------------------------------------------------------------

# Packaged nowhere, so it is built; the linker must be told of Android's log.
sentencepiece() {
    if "$root/.venv/bin/python" -c 'import sentencepiece' 2>/dev/null; then
        say "sentencepiece is there"
        return
    fi
    step "pkg upgrade: Termux needs it before any install" pkg upgrade -y -o Dpkg::Options::=--force-confdef
    step "clang and cmake, which build it" pkg install -y clang cmake
    step "sentencepiece from source: many minutes, and warm hands" \
        env LDFLAGS=-llog "$root/.venv/bin/python" -m pip install sentencepiece ||
        say "NOT installed: sentencepiece; training works without, with tokenizer.kind = \"bpe\" or \"byte\""
}

# --- scripts ----------------------------------------------------------------------------------------------------------

# schedule ARGUMENTS: hangs for ever where the Termux:API app is missing, so not without a limit.
schedule() { timeout 20 termux-job-scheduler "$@" >/dev/null; }

remove() {
    if command -v termux-job-scheduler >/dev/null && step "job $job is cancelled" schedule --cancel --job-id "$job"; then :; fi
    for name in train status stop; do
        step "the shortcut $name goes" rm -f "$shortcuts/ondevice-$name"
    done
    step "the script that Termux:Boot starts goes" rm -f "$boot"
    step "the watchdog and its settings go" rm -rf "$settings"
    for name in ondevice ondevice-tui; do
        if ours "$PREFIX/bin/$name"; then step "the command $name goes; .venv/bin/$name stays" rm -f "$PREFIX/bin/$name"; fi
    done
    say "your runs, ondevice and Termux's packages stay as they are"
}

# put FROM TO: a copy in one instant, because Android may start the old one at this moment.
put() {
    cp "$1" "$2.new"
    chmod 700 "$2.new"
    mv -f "$2.new" "$2"
}

# ours FILE: whether it is a link that this script made, here or in another clone.
ours() {
    [ -L "$1" ] || return 1
    case $(readlink "$1") in */.venv/bin/*) ;; *) return 1 ;; esac
}

find_ondevice() {
    for found in "$root/.venv/bin/ondevice" "$(command -v ondevice || true)"; do
        if [ ! -x "$found" ]; then continue; fi
        if ours "$found"; then found=$(readlink "$found"); fi
        printf '%s/%s\n' "$(cd "$(dirname "$found")" && pwd -P)" "$(basename "$found")"
        return
    done
    return 1
}

# quote TEXT: as one word of a shell script, whatever it holds.
quote() { printf "'%s'\n" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"; }

write_settings() {
    {
        printf '# Written by termux/install.sh.\nONDEVICE=%s\n' "$(quote "$1")"
        [ -z "${ONDEVICE_HOME:-}" ] || printf 'export ONDEVICE_HOME=%s\n' "$(quote "$ONDEVICE_HOME")"
    } >"$settings/settings.new"
    mv -f "$settings/settings.new" "$settings/settings"
}

put_scripts() {
    ondevice=$(find_ondevice) || {
        [ "$dry" = yes ] || die "the command ondevice is not installed; repeat this without --scripts-only"
        ondevice=$root/.venv/bin/ondevice
    }
    step "folders for Termux:Boot, Termux:Widget and the watchdog" mkdir -p "$settings" "${boot%/*}" "$shortcuts"
    step "only Termux may start shortcuts from there" chmod 700 "$shortcuts"
    step "settings: where ondevice and the runs are" write_settings "$ondevice"
    step "the watchdog, which starts again what was killed or waits outside" put "$here/watchdog" "$settings/watchdog"
    step "the same once after each boot (needs the Termux:Boot app, opened once)" put "$here/boot/ondevice-resume" "$boot"
    for name in train status stop; do
        step "a button of the home screen: $name (needs the Termux:Widget app)" \
            put "$here/shortcut" "$shortcuts/ondevice-$name"
    done
}

# Links in Termux's own bin, so that a person can type `ondevice` anywhere; never over a file of someone else.
put_commands() {
    for name in ondevice ondevice-tui; do
        link=$PREFIX/bin/$name
        if [ "${ondevice%/*}/$name" = "$link" ]; then
            continue
        elif [ -e "$link" ] && ! ours "$link"; then
            say "NOT linked: $link is another's; type ${ondevice%/*}/$name"
        else
            step "the command $name, to be typed anywhere" ln -sf "${ondevice%/*}/$name" "$link"
        fi
    done
}

# The file `scheduled` tells trainers that they may leave when they must wait for long: they are started again.
put_on_schedule() {
    say "Android is asked to look after your runs: every 15 minutes at best, often later, not while the battery is low"
    set -- --script "$settings/watchdog" --job-id "$job" --period-ms 900000 --persisted true --network none \
        --battery-not-low true
    if [ "$dry" = yes ]; then
        printf '         would run: termux-job-scheduler %s\n' "$*"
    elif ! command -v termux-job-scheduler >/dev/null; then
        rm -f "$settings/scheduled"
        say "NOT scheduled: \`pkg upgrade && pkg install termux-api\`, install the Termux:API app, and repeat this"
    elif schedule "$@"; then
        : >"$settings/scheduled"
    else
        rm -f "$settings/scheduled"
        say "NOT scheduled: the Termux:API app does not answer; install or open it, and repeat this"
    fi
}

# --- what is asked for ------------------------------------------------------------------------------------------------

dry=no what=all sentencepiece=no
for word; do
    case $word in
        --dry-run) dry=yes ;;
        --with-sentencepiece) sentencepiece=yes ;;
        --scripts-only) what=scripts ;;
        --remove) what=remove ;;
        -h | --help)
            sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p;}' "$0"
            exit 0
            ;;
        *) die "unknown argument '$word'; \`sh termux/install.sh --help\` lists what it takes" ;;
    esac
done
check_place
if [ "$what" = remove ]; then
    remove
    exit 0
fi
if [ "$what" = all ]; then
    check_phone
    step "pkg upgrade; python, torch, numpy, psutil, onnxruntime, tokenizers, termux-api from pkg; ondevice in .venv" \
        sh "$root/tools/setup"
    [ "$sentencepiece" = no ] || sentencepiece
fi
put_scripts
put_commands
put_on_schedule
say "so that Android kills less: no battery limits for Termux, and Developer options > Disable child process restrictions"
say "undo scripts and commands with \`sh termux/install.sh --remove\`"
if [ "$what" = all ]; then
    say "begin with \`ondevice quickstart\`; docs/first.md goes on from there"
    step "what this phone can do now:" "$ondevice" doctor
fi
