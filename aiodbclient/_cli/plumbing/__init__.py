"""What all commands share: options, clients and stores, questions, runs, and what is printed."""
