"""``ondevice completion bash|zsh|fish``: prints a script that completes commands, flags, runs, presets and keys.

The scripts are small and the same for every version: at each Tab they call this command again, with the words of the
line in ``ONDEVICE_WORDS`` (the one being completed first), and get candidates. What fits is decided here, not by them.
"""

from __future__ import annotations

import argparse
import os

from ondevice.cli.completion_words import candidates

__all__ = ["EXAMPLES", "FILES", "SCRIPTS", "WORDS", "add_arguments", "run"]

WORDS = "ONDEVICE_WORDS"
FILES = ":files"  # printed where names of files fit too

EXAMPLES = """examples:
  ondevice completion bash    prints the script, for a look
  echo 'source <(ondevice completion bash)' >> ~/.bashrc
  echo 'source <(ondevice completion zsh)' >> ~/.zshrc
  echo 'ondevice completion fish | source' >> ~/.config/fish/config.fish

Open a new shell afterwards, type `ondevice ` and press Tab."""

_BASH = r"""# ondevice: completion for bash
_ondevice() {
    local line=${COMP_LINE:0:COMP_POINT} current='' found word
    local -a typed=()
    read -ra typed <<< "$line"
    [[ $line == *[[:space:]] ]] || { current=${typed[-1]}; unset 'typed[-1]'; }
    word=$(printf '%s\n' "$current" "${typed[@]:1}")
    found=$(ONDEVICE_WORDS=$word "${typed[0]:-ondevice}" completion bash 2>/dev/null)
    COMPREPLY=()
    local -i cut=0
    [[ $current == *[=:]* ]] && { word=${current%"${current##*[=:]}"}; cut=${#word}; }
    while IFS=$'\t' read -r word _; do
        case $word in
            :files)
                compopt -o filenames 2>/dev/null
                while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen -f -- "${current:cut}") ;;
            ?*) COMPREPLY+=("${word:cut}") ;;
        esac
    done <<< "$found"
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]]; then compopt -o nospace 2>/dev/null; fi
}
complete -F _ondevice ondevice
"""

_ZSH = r"""#compdef ondevice
# ondevice: completion for zsh
_ondevice() {
    local line files='' typed="${words[CURRENT]}"$'\n'"${(F)words[2,CURRENT-1]}"
    local -a found names texts keys
    found=("${(@f)$(ONDEVICE_WORDS=$typed ${words[1]} completion zsh 2>/dev/null)}")
    for line in $found; do
        case ${line%%$'\t'*} in
            :files) files=1 ;;
            *=) keys+=(${line%%$'\t'*}) ;;
            ?*) names+=(${line%%$'\t'*}); texts+=("${line/$'\t'/  -- }") ;;
        esac
    done
    (( $#keys )) && compadd -S '' -- $keys
    (( $#names )) && compadd -l -d texts -- $names
    [[ -n $files ]] && _files
    return 0
}
if [[ ${funcstack[1]} == _ondevice ]]; then
    _ondevice "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit -u }
    compdef _ondevice ondevice
fi
"""

_FISH = r"""# ondevice: completion for fish
function __ondevice_words
    set -l typed (commandline -opc)
    set -l current (commandline -ct)
    set -l all "$current" $typed[2..-1]
    for line in (ONDEVICE_WORDS=(string join \n -- $all | string collect) $typed[1] completion fish 2>/dev/null)
        if test "$line" = ":files"
            __fish_complete_path "$current"
        else
            echo $line
        end
    end
end
complete -c ondevice -f -a '(__ondevice_words)'
"""

SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=[*SCRIPTS], metavar="bash|zsh|fish", help="the shell you type in")


def run(args: argparse.Namespace) -> int:
    if WORDS not in os.environ:
        print(SCRIPTS[args.shell], end="")
        return 0
    current, *before = os.environ[WORDS].split("\n")
    found, files = candidates(current, [word for word in before if word])
    print("\n".join(["\t".join(filter(None, each)) for each in found] + [FILES] * files))
    return 0
