"""What a run says on the console; its log file has all of it."""

from __future__ import annotations

import logging
from typing import Any

from mmengine.logging import MMLogger
from mmengine.runner import Runner

#: beginnings of what mmengine logs and no user of a tool can act on
_FOR_THE_FILE = (
    'Using env variable `',
    'Loads checkpoint by ',
    'Distributed training is not used',
    'Exp name: ',
    'The prefix is not set in metric class',
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
)


class ConsoleFilter(logging.Filter):
    """Keeps from the console what the Runner lists in many lines (environment, config, order of the
    hooks) and remarks of mmengine about itself."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is shown."""
        text = record.getMessage().strip()
        lists = record.pathname.replace('\\', '/').endswith('mmengine/runner/runner.py')
        if lists and record.levelno < logging.WARNING and '\n' in text:
            return False
        return not text.startswith(_FOR_THE_FILE)


def shorten_console(logger: logging.Logger) -> None:
    """Let a logger's handlers of the console filter by :class:`ConsoleFilter`; files get all.

    Args:
        logger: of mmengine. At level DEBUG its console stays as it is.
    """
    for handler in logger.handlers:
        shown = isinstance(handler, logging.StreamHandler)
        shown = shown and not isinstance(handler, logging.FileHandler)
        filtered = any(isinstance(one, ConsoleFilter) for one in handler.filters)
        if shown and handler.level > logging.DEBUG and not filtered:
            handler.addFilter(ConsoleFilter())


class ToolRunner(Runner):
    """mmengine's Runner with the short console of the tools."""

    def build_logger(
        self, log_level: int | str = 'INFO', log_file: str | None = None, **kwargs: Any
    ) -> MMLogger:
        """mmengine's; the first line says where all of the log is."""
        logger = super().build_logger(log_level, log_file, **kwargs)
        shorten_console(logger)
        for handler in logger.handlers:
            if isinstance(handler, logging.FileHandler):
                logger.info(f'log with environment and config: {handler.baseFilename}')
        return logger
