import torch
from torch import nn

from bantam.nets.students import PRUNED, Student
from bantam.nets.teachers import build_teacher


def test_it_is_torchvisions_net_with_the_face_of_a_student():
    given = build_teacher("resnet18", 5).eval()
    net = Student("resnet18", {}, 5, 32).build().eval()
    net.load_state_dict(given.state_dict(), strict=True)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        output = net.observe(images)
        torch.testing.assert_close(output.logits, given(images))
    assert output.embedding.shape == (2, 512)
    assert [maps.shape[1] for maps in output.features] == [64, 128, 256, 512]


def test_another_layer_may_stand_in_the_classifier_s_place():
    net = Student("resnet18", {}, 5, 32).build().eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = net(images)
        net.fc = nn.Sequential(net.fc)
        torch.testing.assert_close(net(images), expected)


def test_its_description_survives_json():
    for name in PRUNED:
        student = Student(name, {}, 5, 32)
        assert Student.from_json(student.to_json()) == student
