"""The client of the last release at this service, and this client at the service of that release."""

import base64

import httpx
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from exchanges import CALLS, outcome, recorded
from wire import ARROW, stream

import lossclient

RECORD = recorded()
EXCHANGES = RECORD["exchanges"]


def unpacked(exchange, side):
    return base64.b64decode(exchange[side])


def table_of(content):
    return pa.ipc.open_stream(content).read_all()


@pytest.mark.parametrize("name", EXCHANGES)
def test_what_the_old_client_sends_is_answered_as_it_was(client, name):
    assert EXCHANGES[name], "nothing was recorded"
    for exchange in EXCHANGES[name]:
        answer = client.post(
            exchange["path"],
            params=exchange["query"],
            content=unpacked(exchange, "body"),
            headers=exchange["headers"],
        )
        before = unpacked(exchange, "answer")
        assert answer.status_code == exchange["status"], answer.text
        for header in ("content-type", "x-request-id"):
            assert answer.headers[header] == exchange["answer_headers"][header]
        if answer.headers["content-type"] == ARROW:
            old, new = table_of(before), table_of(answer.content)
            assert new.column_names[: len(old.column_names)] == old.column_names
            new = new.select(old.column_names)
            assert (new.schema, str(new.to_pylist())) == (old.schema, str(old.to_pylist()))
        else:
            old, new = httpx.Response(200, content=before).json(), answer.json()
            assert new.keys() >= old.keys()
            for member in ("type", "status", "retryable", "request_id", "error_count"):
                assert new[member] == old[member]
            pointers = [[fault["pointer"] for fault in each["errors"]] for each in (old, new)]
            assert pointers[0] == pointers[1]


class OldService(httpx.BaseTransport):
    """Answers as the service of the last release did, and only what it took."""

    def __init__(self, exchanges):
        self.waiting = list(exchanges)

    def handle_request(self, request):
        exchange = self.waiting.pop(0)
        assert request.url.path == exchange["path"]
        query = dict(request.url.params)
        assert query.keys() <= set(RECORD["options"]), "a parameter that it does not know"
        defaults = {"losses": "mae,mape,smape"}
        assert (defaults | query).items() >= exchange["query"].items()
        for name in ("content-type", "content-encoding", "accept"):
            assert request.headers.get(name) == exchange["headers"].get(name)
        coding = request.headers.get("content-encoding")
        old, new = (
            table_of(pa.CompressedInputStream(pa.BufferReader(body), coding) if coding else body)
            for body in (unpacked(exchange, "body"), request.read())
        )
        assert new.schema.equals(old.schema)
        number, *columns = new.schema.names  # clients number series by chance, and from there on
        assert str(new.select(columns).to_pylist()) == str(old.select(columns).to_pylist())
        content = unpacked(exchange, "answer")
        if len(new) and exchange["status"] == 200:
            added = pc.subtract(new[number][0], old[number][0])
            answer = table_of(content)
            place = answer.schema.get_field_index(number)
            moved = pc.add(answer[number], added)
            content = stream(answer.set_column(place, answer.schema.field(place), moved))
        headers = exchange["answer_headers"] | {"x-request-id": request.headers["x-request-id"]}
        return httpx.Response(exchange["status"], headers=headers, content=content)


@pytest.mark.parametrize("name", CALLS)
def test_this_client_reads_what_the_old_service_answers(url, name):
    old = OldService(EXCHANGES[name])
    with lossclient.Client("http://old.example", transport=old, retries=0) as client:
        seen = outcome(CALLS[name], client)
    assert old.waiting == []
    with lossclient.Client(url) as client:
        assert str(seen) == str(outcome(CALLS[name], client))
