"""Messages: turns, tool calls and transcripts of any provider become messages in one form.

In: the value of one cell, or a transcript. Out: {role, content, ...}, or a RowProblem that says why
not; and what messages say, as text and as chat templates expect them.
"""
