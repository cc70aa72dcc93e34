"""Records that come whole are checked for what the schema leaves open and a workspace relies on."""

from __future__ import annotations

import pytest

from risbench.core.errors import InvalidRowError
from risbench.ingest.whole import check_whole
from tests.record import a_record


@pytest.mark.parametrize("box", [(-9.2e18, 3, 10, 7), (4, 3, 21, 7), (4, -1, 10, 7)])
def test_a_box_that_does_not_lie_in_the_image_is_refused(box: tuple[float, float, float, float]) -> None:
    record = a_record().model_copy(update={"id": "world/a/1", "image": a_record().image.model_copy(update={"path": "images/world/a.png"})})
    check_whole(record)
    target = record.targets[0].model_copy(update={"box": box})
    with pytest.raises(InvalidRowError, match=r"outside_image: targets\[0\].box = .*in the image of 20 x 20 px"):
        check_whole(record.model_copy(update={"targets": (target,)}))
