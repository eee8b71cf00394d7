"""One call: the operations, what follows a failure, and the one module that sends HTTP."""
