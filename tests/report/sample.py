"""One report with everything in it: each status and severity, a matrix with each kind of cell, and text that means harm."""

from meshtls.model.check import Cell, Check, Confidence, Finding, Matrix, Report, Severity, Status

HOSTILE = "PeerAuthentication/payments/<script>alert(1)</script>\u202e\x1b[31m"

DISABLED = Finding(
    code="MT201", severity=Severity.ERROR, subject="DestinationRule/shop/cart-legacy",
    message="Meshed clients send plaintext to cart.shop.svc.cluster.local: tls is DISABLE. Every call fails with 503 once shop is STRICT.",
    because=("DestinationRule/shop/cart-legacy spec.trafficPolicy.tls is DISABLE", "Deployment/shop/cart would be STRICT"),
    fix="apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: cart-legacy\n", catalogue=("DR-01",),
    file="shop/20-cart.yaml", line=14, column=7, path=("spec", "trafficPolicy", "tls"))
PORT = Finding(code="MT104", severity=Severity.WARNING, subject="PeerAuthentication/payments/db", message="80 is the Service's port.",
               catalogue=("PA-06",), file="pay ments/30.yaml", line=41, confidence=Confidence.INFERRED)
HARM = Finding(code="MT121", severity=Severity.CRITICAL, subject=HOSTILE, message="text \x1b]0;x\x07 <b>bold</b> `code` | pipe\nsecond line",
               fix="```\nx", confidence=Confidence.MEASURED)
KNOWN = Finding(code="MT270", severity=Severity.ERROR, subject="Deployment/shop/db", message="hangs", accepted="team-db until 2027-01-01: moves (file)")

ROWS = ("shop/web (sidecar)", "legacy/poller (no sidecar)")
COLUMNS = ("shop/cart:8080", "payments/ledger:9000", "payments/db-0:5432")


def _cell(row: int, column: int, expected: str, observed: str, ok: bool | None, detail: str = "") -> Cell:
    return Cell(row=ROWS[row], column=COLUMNS[column], expected=expected, observed=observed, ok=ok, detail=detail)


REPORT = Report(
    kind="AuditReport", title="Audit of the shop", started="2026-08-22T10:00:00Z", finished="2026-08-22T10:00:02Z",
    checks=(
        Check(id="MT121", title="hostile", group="server side", status=Status.FAIL, findings=(HARM,)),
        Check(id="MT201", title="A DestinationRule makes meshed clients send plaintext", group="client side", status=Status.FAIL,
              findings=(DISABLED,), seconds=0.25),
        Check(id="MT104", title="A port exception is keyed on the Service's port", group="server side", status=Status.FAIL, findings=(PORT,)),
        Check(id="MT270", title="Server first", group="client side", status=Status.PASS, findings=(KNOWN,)),
        Check(id="MT301", title="A sidecar is asked for by annotation only", group="workloads", status=Status.PASS),
        Check(id="MT402", title="Roots agree", group="certificates", status=Status.SKIP, reason="ConfigMap could not be read: forbidden"),
        Check(id="probe", title="the API answers", status=Status.ERROR, reason="the API server did not answer"),
    ),
    matrices=(Matrix(title="Who reaches whom under STRICT", rows=ROWS, columns=COLUMNS, cells=(
        _cell(0, 0, "MTLS", "MTLS", True), _cell(0, 1, "MTLS", "MTLS", True),
        _cell(1, 0, "REFUSED", "REFUSED", True), _cell(1, 1, "REFUSED", "PLAINTEXT", False, "port 9000 is not intercepted"),
        _cell(1, 2, "REFUSED", "NOT_RUN", None, "no answer within 2 s"))),),
    facts=(("source", "shop, 6 files"), ("root namespace", "istio-system (assumed)")), coverage={"questions": 7, "answered": 5, "percent": 71})
