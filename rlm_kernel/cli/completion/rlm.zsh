#compdef %(prog_name)s
# Completion of %(prog_name)s for zsh. All that it offers comes from the command itself, a line for each value.

%(complete_func)s() {
    local line value help
    local -a open opened done_ told
    line="${(j: :)words[1,CURRENT-1]} $PREFIX"
    [[ -n $PREFIX && $line == *' ' ]] && line="${line%% }" && line="${line%%\\}"
    while IFS=$'\t' read -r value help; do
        [[ -n $value ]] || continue
        if [[ $value == *[=/] ]]; then
            open+=("$value")
            opened+=("$value${help:+  $help}")
        else
            done_+=("$value")
            told+=("$value${help:+  $help}")
        fi
    done < <(_TYPER_COMPLETE_ARGS="$line" _TYPER_COMPLETE_FISH_ACTION=get-args %(autocomplete_var)s=complete_fish $words[1] 2>/dev/null)
    if (( $#open + $#done_ == 0 )); then
        _files
        return
    fi
    [[ $PREFIX == -*=* ]] && compset -P 1 '*='
    (( $#open )) && compadd -S '' -l -d opened -a open
    (( $#done_ )) && compadd -l -d told -a done_
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
