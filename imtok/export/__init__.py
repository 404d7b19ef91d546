"""Token sets out: files in the layouts that trainers read."""
