"""The relay worker: answers from other servers, through the worker contract."""
