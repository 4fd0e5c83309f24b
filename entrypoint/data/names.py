"""What options may be called; apart from what they do, so that --help imports nothing heavy."""

FORMATS = (
    "messages", "sharegpt", "preference", "alpaca", "prompt-completion", "question-answer", "text",
)  # fmt: skip
PRESETS = ("helpful-instructions", "truthy-dpo")
CHECKS = (
    "empty", "roles", "order", "same", "encoding", "unread", "duplicates", "near-duplicates",
    "overlap", "untrained", "long", "leakage",
)  # fmt: skip
