"""The command line: options, what each verb calls, and what a person sees."""
