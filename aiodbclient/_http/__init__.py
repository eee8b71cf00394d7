"""One API call: the operations, the retry rules, and the only module that sends HTTP."""
