"""What no schema can say: which cursor fits, which key is new, and that a tag has quotes."""

import uuid

import schemathesis


@schemathesis.hook
def before_call(context, case, kwargs):
    query = case.query or {}
    # Only a `Link` holds a cursor that fits; one that is too long stays.
    if len(str(query.get("cursor", ""))) <= 1024:
        query.pop("cursor", None)
    headers = case.headers or {}
    for name, value in list(headers.items()):
        # The same key with another body is 422, and the generator likes some keys.
        if name.lower() == "idempotency-key" and 1 <= len(str(value)) <= 200:
            headers[name] = f"{value}{uuid.uuid4().hex}"
        if name.lower() in ("if-match", "if-none-match") and value == "0":
            headers[name] = '"0"'
