"""What the exit codes mean. Imports nothing: ``forgec check`` has no time to."""

EXIT_OK, EXIT_DIAGNOSTICS, EXIT_USAGE, EXIT_INTERNAL, EXIT_INTERRUPTED, EXIT_BROKEN_PIPE = 0, 1, 2, 70, 130, 141

EXIT_CODES: dict[int, str] = {
    EXIT_OK: "success",
    EXIT_DIAGNOSTICS: "errors were reported, each with a code (see 'forgec explain')",
    EXIT_USAGE: "the command line could not be understood",
    EXIT_INTERNAL: "internal error of forgec",
    EXIT_INTERRUPTED: "interrupted",
    EXIT_BROKEN_PIPE: "whoever read standard output went away",
}
