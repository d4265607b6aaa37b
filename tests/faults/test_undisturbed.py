from tests.faults.conftest import Stage
import time
def test_x(stage: Stage) -> None:
    for k, v in stage.traces.items():
        print("==", k, len(v)); print("\n".join(v))
    for k, v in stage.expected["more-history"].items():
        print("##", k); print(v if not hasattr(v, "shape") else v.head(3).to_string())
    for name in stage.traces:
        pass
