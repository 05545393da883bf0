# Completion of %(prog_name)s for bash. All that it offers comes from the command itself, a line for each value.
%(complete_func)s() {
    local line="${COMP_LINE:0:COMP_POINT}" word="${COMP_WORDS[COMP_CWORD]}" before value _help
    COMPREPLY=()
    # Bash takes = and : as ends of words. What stands before them in the same word is not to be inserted again.
    [[ $word == [=:] ]] && word=""
    while [[ -n $word && $line != *"$word" ]]; do word="${word:0:-1}"; done
    before="${line%%"$word"}"
    before="${before##*[[:space:]]}"
    [[ $before == -*=* ]] && before="${before#*=}"
    # In a word that goes on behind an escaped or quoted space, that space is no end of it.
    [[ -n $word && $line == *' ' ]] && line="${line%% }" && line="${line%%\\}"
    while IFS=$'\t' read -r value _help; do
        [[ -n $value ]] || continue
        if [[ -e $value ]]; then
            compopt -o filenames
            value="${value%%/}"
        elif [[ $value == *[=/] ]]; then
            compopt -o nospace
        fi
        COMPREPLY+=("${value#"$before"}")
    done < <(_TYPER_COMPLETE_ARGS="$line" _TYPER_COMPLETE_FISH_ACTION=get-args %(autocomplete_var)s=complete_fish "$1" 2>/dev/null)
}

complete -o default -F %(complete_func)s %(prog_name)s
