"""docs/events.md against the programs: its tables are the code's, its examples are admitted, and config/events.schema.json
accepts and refuses what the decoder does."""

import json
import os
import re
import subprocess
import time

import jsonschema
import pytest
import yaml

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.environ.get("BUILD_DIR", os.path.join(ROOT, "build", "release"))
CASES = os.path.join(ROOT, "tests", "cases", "decode")
EXAMPLES = os.path.join(ROOT, "config", "examples")


def read(*names):
    with open(os.path.join(ROOT, *names), encoding="utf-8") as f:
        return f.read()


DOCUMENT = read("docs", "events.md")
SCHEMA = json.loads(read("config", "events.schema.json"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def section(title):
    """The text under a heading, up to the next one of any level."""
    found = re.search(r"^#+ %s\n(.*?)(?=^#+ |\Z)" % re.escape(title), re.sub(r"(?m)^#!", " #!", DOCUMENT), re.M | re.S)
    assert found, title
    return found[1]


def tables(text):
    """Each table as a list of rows, heads left out, of lists of cells."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in block.strip().split("\n")]
        found.append(rows[2:])
    return found


def code(cell):
    return cell.strip("`")


def test_reasons_are_those_of_the_code():
    macro = re.search(r"#define LIVENPS_REASON_LIST\(X\)(.*?)\n\n", read("common", "event.h"), re.S)[1]
    names = re.findall(r'X\(\w+,\s*"(\w+)",\s*\\?\s*"([^"]*)"\)', macro)
    assert len(names) >= 24
    table = [(code(row[0]), row[1]) for row in tables(section("Rejections"))[0]]
    assert table == names


def test_fields_are_those_of_the_code():
    source = read("common", "mapping.c")
    names = re.findall(r'"(\w+)"', re.search(r"livenps_field_names\[LIVENPS_FIELDS\] = \{(.*?)\}", source, re.S)[1])
    assert [code(row[0]) for row in tables(section("The plain form"))[0]] == names
    plain = SCHEMA["$defs"]["plain"]["properties"].keys() | SCHEMA["$defs"]["fields"]["properties"].keys() | \
        SCHEMA["$defs"]["answer"]["properties"].keys() | {"score"}
    assert plain == set(names) | {"revision", "deleted"}


def test_keys_of_mapping_files_are_those_of_the_code():
    source = read("common", "mapping.c")
    of_field = re.findall(r'\{"(\w+)",\s*field_', source)
    of_rule = re.findall(r'\{"(\w+)",\s*rule_', source)
    of_signature = re.findall(r'\{"(\w+)",\s*signature_', source)
    fields, rules, signature = tables(section("Mapping files"))
    assert sorted(code(row[0]) for row in fields) == sorted(of_field)
    assert sorted(code(row[0]) for row in rules) == sorted(of_rule)
    assert sorted(code(row[0]) for row in signature) == sorted(of_signature)


def test_quarantine_headers_are_those_of_the_code():
    path = os.path.join(ROOT, "consumer", "quarantine.c")
    names = set(re.findall(r'"(livenps-[\w-]+)"', read("consumer", "quarantine.c")))
    assert names, path
    documented = {code(row[0][len("header "):]) for row in tables(section("The quarantine topic"))[0]
                  if row[0].startswith("header ")}
    assert documented == names


# ---- examples ----

def check(lines, *options):
    """What livenps-producer check says of these lines, had they happened now: its exit code and its lines."""
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    text = "".join(line + "\n" for line in lines)
    text = re.sub(r"2026-11-21T\d\d:\d\d:\d\d(\.\d+)?(Z|\+01:00)", stamp + "Z", text)
    text = re.sub(r'("created_at"):179525\d{4}\b', r"\1:%d" % now, text)
    done = subprocess.run([os.path.join(BUILD, "livenps-producer"), "check", *options, "-"],
                          input=text.encode(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300,
                          env={k: v for k, v in os.environ.items() if not k.startswith("LIVENPS_")})
    return done.returncode, done.stdout.decode().splitlines(), done.stderr.decode()


def events_of_the_document():
    return [" ".join(block.split("\n")) for block in re.findall(r"^```json\n(.*?)^```", DOCUMENT, re.M | re.S)]


def lines_of(name):
    return [line for line in read("config", "examples", name).split("\n") if line]


def test_events_in_the_document_are_admitted():
    events = events_of_the_document()
    assert len(events) >= 6
    for event in events:
        VALIDATOR.validate(json.loads(event))
    exit_code, lines, errors = check(events)
    assert exit_code == 0, (lines, errors)


@pytest.mark.parametrize("name", ["plain.jsonl", "cloudevents.jsonl"])
def test_examples_of_the_contract(name):
    lines = lines_of(name)
    for line in lines:
        VALIDATOR.validate(json.loads(line))
    exit_code, said, errors = check(lines)
    assert exit_code == 0 and len(said) == len(lines), (said, errors)


@pytest.mark.parametrize("vendor", ["delighted", "typeform"])
def test_examples_of_vendors(vendor):
    options = ["--topic", vendor, "--set", "topics=" + vendor,
               "--set", "mappings.%s=%s" % (vendor, os.path.join(ROOT, "config", "mappings", vendor + ".yaml"))]
    exit_code, said, errors = check(lines_of(vendor + ".jsonl"), *options)
    assert exit_code == 0, (said, errors)
    refused = lines_of(vendor + "-refused.jsonl")
    exit_code, said, errors = check(refused, *options)
    assert exit_code == 1 and len(said) == len(refused), (said, errors)
    assert all(re.search(r": (correction|no_event): ", line) for line in said), said
    for line in lines_of(vendor + ".jsonl"):
        assert not VALIDATOR.is_valid(json.loads(line)), "a vendor's payload is not the contract's form"


def test_mapping_in_the_document_loads(tmp_path):
    blocks = [block for block in re.findall(r"^```yaml\n(.*?)^```", DOCUMENT, re.M | re.S) if "fields:" in block]
    assert len(blocks) == 1
    path = tmp_path / "mapping.yaml"
    path.write_text(blocks[0])
    exit_code, said, errors = check(lines_of("delighted.jsonl"), "--topic", "t", "--set", "topics=t",
                                    "--set", "mappings.t=%s" % path)
    assert exit_code == 0, (said, errors)
    # and it says what the complete file says, as far as it goes
    full = yaml.safe_load(read("config", "mappings", "delighted.yaml"))
    short = yaml.safe_load(blocks[0])
    assert all(rule in full["rules"] for rule in short["rules"])
    assert full["fields"]["time"] == short["fields"]["time"] and full["fields"]["score"] == short["fields"]["score"]


# ---- the schema against the decoder's cases ----

# What a schema cannot say; the schema's own description lists these.
BEYOND_A_SCHEMA = {
    "reasons": {"duplicate_key", "too_deep", "too_large", "future", "no_record_time"},
    "cases": {
        "name-86-separators", "segment-too-long", "score-decimal", "score-exponent",
        "score-minus-zero", "bad-value-three-decimals", "bad-value-exponent", "time-30-february", "time-year-zero",
    },
}


def cases():
    for name in sorted(os.listdir(CASES)):
        folder = os.path.join(CASES, name)
        files = set(os.listdir(folder))
        if "input" in files and not files & {"headers", "mapping", "max_bytes", "touchpoints"}:
            yield name


def test_schema_agrees_with_the_decoder():
    agreed = 0
    for name in cases():
        with open(os.path.join(CASES, name, "input"), "rb") as f:
            value = f.read()
        reason = None
        path = os.path.join(CASES, name, "reason")
        if os.path.exists(path):
            with open(path, encoding="utf-8") as f:
                reason = f.read().split()[0]
        try:
            document = json.loads(value.decode(), parse_constant=lambda word: (_ for _ in ()).throw(ValueError(word)))
        except (ValueError, RecursionError):
            # 10,000 digits are more than this Python converts; the decoder does not convert them.
            assert reason is not None or name == "long-number-in-an-unknown-field", name
            continue
        if reason in BEYOND_A_SCHEMA["reasons"] or name in BEYOND_A_SCHEMA["cases"]:
            continue
        if reason == "invalid_utf8":
            continue  # Python keeps lone surrogates
        errors = [error.message for error in VALIDATOR.iter_errors(document)]
        assert bool(errors) == (reason is not None), "%s: %s, the schema says %s" % (name, reason, errors)
        agreed += 1
    assert agreed >= 100


def test_each_exception_is_one():
    """An exception that is none would hide a hole in the schema."""
    for name in BEYOND_A_SCHEMA["cases"]:
        with open(os.path.join(CASES, name, "input"), "rb") as f:
            document = json.loads(f.read().decode())
        assert VALIDATOR.is_valid(document), name
        assert os.path.exists(os.path.join(CASES, name, "reason")), name


def test_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate({})
