"""What can only be measured or checked on a GPU. QUEUE.md lists it all, one command each."""
