# Completion of %(prog_name)s for fish. All that it offers comes from the command itself, a line for each value.
function %(complete_func)s
    set -l line (commandline -cp | string collect)
    set -l token (commandline -ct | string collect)
    test -n "$token"; and set line (string trim --right --chars ' \\' -- "$line")
    set -l option (string match -r -- '^-[^=]*=' "$token"; or echo)
    set -l values (env _TYPER_COMPLETE_ARGS="$line" _TYPER_COMPLETE_FISH_ACTION=get-args %(autocomplete_var)s=complete_fish %(prog_name)s 2>/dev/null | string match --invert '')
    if test (count $values) -eq 0
        __fish_complete_path "$token"
        return
    end
    for value in $values
        echo "$option$value"
    end
end

complete --command %(prog_name)s --no-files --arguments '(%(complete_func)s)'
