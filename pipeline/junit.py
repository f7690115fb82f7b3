"""junit.xml: every clause of every gate as a test case, for the page of a continuous integration."""

from xml.etree import ElementTree

from pipeline.page.record import RunRecord, StageRecord, visible
from safety.clauses import Clause


def junit(record: RunRecord) -> str:
    """The run's gates as JUnit XML; the same run gives the same text.

    A clause that fails is a failure, one that could not be decided an error, one that does not apply is skipped. A
    stage with a checkpoint and no valid verdict is an error: nothing that was not judged looks like a pass. A waived
    gate keeps its failures, and its reason stands beside them.
    """
    suites = ElementTree.Element("testsuites", name=visible(record.name))
    for stage in record.stages:
        suites.append(_suite(stage))
    for kind in ("tests", "failures", "errors", "skipped"):
        suites.set(kind, str(sum(int(suite.get(kind, "0")) for suite in suites)))
    ElementTree.indent(suites, " ")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(suites, encoding="unicode")}\n'


def _suite(stage: StageRecord) -> ElementTree.Element:
    suite = ElementTree.Element("testsuite", name=stage.name)
    verdict = stage.verdict
    if verdict is None:
        case = ElementTree.SubElement(suite, "testcase", classname=stage.name, name="verdict")
        if stage.has_checkpoint:
            ElementTree.SubElement(case, "error", message="there is a checkpoint, but no valid verdict about it")
        else:
            ElementTree.SubElement(case, "skipped", message="the run has not come this far")
    else:
        properties = ElementTree.SubElement(suite, "properties")
        facts = {"outcome": verdict.outcome, "profile": verdict.profile, "attempt": str(verdict.attempt),
                 "checkpoint": verdict.checkpoint, "policy": verdict.policy}  # fmt: skip
        facts |= {"waived": verdict.waiver.reason} if verdict.waiver is not None else {}
        for name, value in facts.items():
            ElementTree.SubElement(properties, "property", name=name, value=visible(value))
        for clause in verdict.clauses:
            suite.append(_case(stage.name, clause))
    for kind, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(kind, str(len(suite.findall(f"testcase/{tag}"))))
    suite.set("tests", str(len(suite.findall("testcase"))))
    return suite


def _case(stage: str, clause: Clause) -> ElementTree.Element:
    kind, _, rest = clause.name.partition("/")
    case = ElementTree.Element("testcase", classname=visible(f"{stage}.{kind}"), name=visible(rest or kind))
    tag = {"fail": "failure", "inconclusive": "error", "not applicable": "skipped"}.get(clause.outcome)
    if tag is not None:
        ElementTree.SubElement(case, tag, message=visible(clause.reason))
    return case
