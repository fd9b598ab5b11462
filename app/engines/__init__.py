"""What turns a text into an answer: the engines, and the files that they read."""
