"""Run a script for 3D Slicer on Slicer's own libraries (PyPI: slicer-core), which come without its window.

``python slicer_application.py OUT X,Y,Z SCRIPT ARGUMENTS...`` writes to ``OUT`` (.npz) what the three slice views show
at a place in mm (right, front, top), and what the script made of map and mask. Here are only those parts of Slicer's
application that load files and hold the slice views; each hands on to Slicer's own logic.
"""

import runpy
import sys
from types import SimpleNamespace

import numpy as np
import slicer
import slicer.util  # which asks slicer.app for files and views
import vtk
from vtk.util.numpy_support import vtk_to_numpy

VIEWS = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}
SIDE = 300  # pixels of a view


def connected(logic, scene, application=None):
    """A logic that knows the scene."""
    logic.SetMRMLScene(scene)
    if application is not None:
        logic.SetMRMLApplicationLogic(application)
    return logic


def loaders(scene, application):
    """What Slicer's readers of files call, by the kind of file."""
    colours = connected(slicer.vtkMRMLColorLogic(), scene)
    colours.AddDefaultColorNodes()
    application.SetModuleLogic("Colors", colours)
    volumes = connected(slicer.vtkSlicerVolumesLogic(), scene, application)
    segmentations = connected(slicer.vtkSlicerSegmentationsModuleLogic(), scene, application)
    return {
        "VolumeFile": lambda path: volumes.AddArchetypeVolume(path, "volume", 0),
        "ColorTableFile": colours.LoadColorFile,
        "SegmentationFile": segmentations.LoadSegmentationFromFile,
    }


def start():
    """Scene, files and slice views where a script looks for them; returns scene and views."""
    slicer.mrmlScene = scene = slicer.vtkMRMLScene()
    application = connected(slicer.vtkMRMLApplicationLogic(), scene)
    load = loaders(scene, application)

    def load_nodes(kind, properties, loaded, messages):
        node = load[kind](properties["fileName"])
        if node is not None:
            loaded.AddItem(node)
        return node is not None

    views, all_views = {}, vtk.vtkCollection()
    for name, orientation in VIEWS.items():
        views[name] = connected(slicer.vtkMRMLSliceLogic(), scene, application)
        views[name].AddSliceNode(name).SetOrientation(orientation)
        views[name].ResizeSliceNode(SIDE, SIDE)
        all_views.AddItem(views[name])
    slicer.app = SimpleNamespace(
        coreIOManager=lambda: SimpleNamespace(loadNodes=load_nodes),
        layoutManager=lambda: SimpleNamespace(mrmlSliceLogics=lambda: all_views),
        applicationLogic=lambda: application,  # which the others need to the end
    )
    return scene, views


def shown(view, place):
    """What a slice view shows through a place: RGB uint8 [SIDE, SIDE, 3], and the pixel of the place (row, column)."""
    view.GetSliceNode().JumpSliceByOffsetting(*place)
    view.UpdatePipeline()
    port = view.GetImageDataConnection()
    port.GetProducer().Update()
    image = port.GetProducer().GetOutputDataObject(port.GetIndex())
    to_pixels = vtk.vtkMatrix4x4()
    vtk.vtkMatrix4x4.Invert(view.GetSliceNode().GetXYToRAS(), to_pixels)
    column, row = to_pixels.MultiplyPoint([*place, 1])[:2]
    pixels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(SIDE, SIDE, -1)
    return pixels[::-1, :, :3].astype(np.uint8), (SIDE - 1 - round(row), round(column))


def segment(scene):
    """Voxels of the first segment, and the mean of their places in mm (right, front, top)."""
    node = scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    image, to_mm = slicer.vtkOrientedImageData(), vtk.vtkMatrix4x4()
    node.GetBinaryLabelmapRepresentation(node.GetSegmentation().GetNthSegmentID(0), image)
    image.GetImageToWorldMatrix(to_mm)
    voxels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
    middle = np.argwhere(voxels)[:, ::-1].mean(axis=0) + image.GetExtent()[::2]
    return np.count_nonzero(voxels), to_mm.MultiplyPoint([*middle, 1])[:3]


def main(out, place, script, *arguments):
    place = [float(number) for number in place.split(",")]
    scene, views = start()
    sys.argv = [script, *arguments]
    runpy.run_path(script)
    found = {}
    for name, view in views.items():
        found[name], found[f"{name}_place"] = shown(view, place)
    display = scene.GetNthNodeByClass(1, "vtkMRMLScalarVolumeNode").GetDisplayNode()
    found["window"] = display.GetWindowLevelMin(), display.GetWindowLevelMax()
    found["segment_voxels"], found["segment_centre"] = segment(scene)
    np.savez(out, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
