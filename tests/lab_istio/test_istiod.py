"""The lab's configuration answers every recorded call and port as istiod's does."""

import pytest
import recordings
import simulate


@pytest.mark.parametrize("path", recordings.files("istiod*.jsonl.gz"), ids=lambda p: p.name)
@pytest.mark.parametrize("variant", ["now", "a-strict"])
def test_every_port_and_call_is_answered_as_istiod_answers_it(path, variant):
    wrong, asked = [], 0
    for recorded in recordings.meshes(path):
        mesh = simulate.Mesh(recordings.variant(recorded, variant))
        answers = recorded[variant]
        for pod, ports in answers["inbound"].items():
            asked += len(ports)
            have = recordings.modes(mesh, pod, ports)
            wrong += [(recorded["seed"], pod, p, ports[p], have[p]) for p in ports if have[p] != ports[p]]
        for question, want in answers["outbound"].items():
            asked += 1
            got = recordings.comparable(recordings.call(mesh, question))
            if got != recordings.comparable(want):
                wrong.append((recorded["seed"], question, want, got))
    assert not wrong[:5], f"{len(wrong)} of {asked} differ"
    assert asked > 1000
