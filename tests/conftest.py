"""A test that fails while the machine stands still is run once more, and the summary says so: what it waited for did not get the
time it was given. A test that fails while the machine runs fails, and so does one that fails twice."""

import warnings

import pytest
from _pytest.runner import runtestprotocol

from stillness import STILL_S, Stillness

stillness = Stillness()


def pytest_configure():
    stillness.begin()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    stillness.take()
    reports = runtestprotocol(item, nextitem=nextitem, log=False)
    failed = [report for report in reports if report.failed]
    still = stillness.take()
    if failed and still >= STILL_S:
        warnings.warn(pytest.PytestWarning("%s failed while the machine stood still for %.1f s, and was run again; the failure was:\n%s"
                                           % (item.nodeid, still, "\n".join(report.longreprtext[-3000:] for report in failed))))
        item._initrequest()
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
