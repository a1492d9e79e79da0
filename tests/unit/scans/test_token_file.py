import pytest
import torch

from dinodp.errors import InputError
from dinodp.scans.detecting.token_file import TokenFile


def test_token_file(tmp_path):
    file = TokenFile(tmp_path / "t")
    first, second = torch.rand(2, 3, 3, 5), torch.rand(1, 2, 4, 5)
    shown = [torch.rand(2, 3, 3) > 0.5, torch.rand(1, 2, 4) > 0.5]
    file.append(first, shown[0], "a")
    file.append(second, shown[1], "b")
    assert file.subjects == ["a", "a", "b"]
    assert (file.n_images, file.dim) == (3, 5)
    found = file.read([2, 0])[0, 0]
    torch.testing.assert_close(found, torch.cat([second.reshape(-1, 5), first[0].reshape(-1, 5)]), atol=1e-3, rtol=0)
    torch.testing.assert_close(file.read([2]), second, atol=1e-3, rtol=0)
    torch.testing.assert_close(file.read([1, 0]), first.flip(0), atol=1e-3, rtol=0)  # of one grid
    assert torch.equal(file.foreground([1, 0]), shown[0].flip(0))
    for images in ([2, 0], [0, 1], [2]):  # in the shape of what is read
        assert file.foreground(images).shape == file.read(images).shape[:3]
        assert file.count(images) == file.foreground(images).numel()
    assert torch.equal(file.foreground([2, 0])[0, 0], torch.cat([shown[1].flatten(), shown[0][0].flatten()]))
    assert file.n_patches == (9 + 9 + 8) // 3
    with pytest.raises(InputError, match="embeddings that are not finite"):
        file.append(torch.full((1, 1, 1, 5), torch.inf), torch.ones(1, 1, 1, dtype=torch.bool), "c")
    file.close()
