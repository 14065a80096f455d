"""Colors of hits: materials, light, shadows, haze and sky; every step once per visible pixel."""

from __future__ import annotations

import torch
from torch import Tensor

from depth_node.pretraining.rendering.bank import DeviceBank
from depth_node.pretraining.rendering.casting import Vector
from depth_node.pretraining.rendering.light_views import LightViews
from depth_node.pretraining.rendering.light_views import corners_of
from depth_node.pretraining.rendering.light_views import in_picture
from depth_node.pretraining.rendering.packing import PackedShots
from depth_node.pretraining.rendering.surfaces import Met
from depth_node.pretraining.rendering.surfaces import Surface
from depth_node.pretraining.rendering.surfaces import dot
from depth_node.world.scene import COVER_PX
from depth_node.world.scene import COVER_STEEPNESS_PER_M
from depth_node.world.scene import SHADOW_PX

_SHADOW_BIAS_M = 0.004
_STAIN_SCALE = 2.7
_BESIDE_M = 0.2
_MIRRORING = 0.25


class Shading:
    """The light of one batch of shots."""

    def __init__(self, shots: PackedShots, views: LightViews, bank: DeviceBank) -> None:
        """:param views: pictures of the scenes of the shots."""
        self._shots = shots
        self.views = views
        self._bank = bank
        self._scene = shots.scene
        around = shots.looks.surroundings[:, :, None, None]
        self._ambient, self._fill, self._toward, self._horizon, self._zenith, self._haze = (
            around[:, 3 * k : 3 * k + 3] for k in range(6)
        )
        self._headlight, self._clouds, self._haze_m = (around[:, k] for k in (18, 19, 20))
        self._mirror, self._mirror_texture = around[:, 21], around[:, 22]
        self._light_color = shots.looks.light_color[:, :, None, None]

    def light(self, surface: Surface, met: Met, ways: Vector, sky: Tensor) -> Tensor:
        """Return the light that reaches the camera, (B, 3, H, W) linear RGB, 1 is white paper."""
        color = self._lit(surface, met.depth_m)
        keep = torch.exp(-(met.depth_m * surface.ray_length) / self._haze_m)[:, None]
        color = (color - self._haze) * keep + self._haze
        return torch.where(sky[:, None], self._sky(ways), color)

    def _lit(self, surface: Surface, depth: Tensor) -> Tensor:
        look = self._shots.looks.materials.flatten(0, 1)[surface.material]  # (B, H, W, 10)
        key, shine = self._key_light(surface)
        fill = sum(surface.normal[k] * self._toward[:, k] for k in range(3)).clamp_min(0.0)
        head = self._headlight * surface.facing / (0.2 + (depth * 0.5) ** 2)
        upward = self._openness(surface) * (0.8 + 0.2 * surface.normal[2])
        light = key[:, None] * self._light_color + fill[:, None] * self._fill
        light = light + upward[:, None] * self._ambient + (head + look[..., 9])[:, None]
        light = light + self._lamplight(surface)
        shine = (shine * look[..., 8])[:, None] * self._light_color
        color = self._albedo(surface, depth, look) * light + shine
        return self._mirrored(color, surface, look[..., 8])

    def _lamplight(self, surface: Surface) -> Tensor:
        """Return the light of the lamps without shadows, (B, 3, H, W)."""
        lamps = self._shots.looks.lamps
        total = surface.facing.new_zeros(())
        for lamp in lamps.unbind(1):
            x, y, z = (lamp[:, k, None, None] - surface.position[k] for k in range(3))
            squared = dot((x, y, z), (x, y, z)) + 1e-4
            cosine = dot(surface.normal, (x, y, z)) / torch.sqrt(squared)
            reach = lamp[:, 6, None, None] ** 2
            strength = cosine.clamp_min(0.0) * (reach / (reach + squared))
            total = total + strength[:, None] * lamp[:, 3:6, None, None]
        return total

    def _mirrored(self, color: Tensor, surface: Surface, shine: Tensor) -> Tensor:
        """Add the invented environment that shiny surfaces mirror; changes ``color`` in place."""
        seen = ((shine > _MIRRORING) & (self._mirror > 0)).nonzero(as_tuple=True)
        view = seen[0]
        facing = surface.facing[seen]
        x, y, z = (
            2 * facing * surface.normal[k][seen] - surface.toward[k][seen] for k in range(3)
        )
        number = self._mirror_texture[view, 0, 0].long()
        footprint = torch.full_like(z, 1.5 / self._shots.x.shape[1])
        texture = self._bank.lookup(number, torch.atan2(y, x), z, footprint, 1.0)
        fresnel = 0.06 + 0.94 * (1 - facing) ** 4
        strength = shine[seen].clamp_max(1.0) * self._mirror[view, 0, 0] * fresnel
        from_above = self._fill + 0.3 * self._light_color  # (B, 3, 1, 1)
        bright = self._ambient[view, :, 0, 0] + (
            from_above[view, :, 0, 0] * z.clamp_min(0.0)[:, None]
        )
        # advanced indices around a slice come first: (pixels, 3)
        own = color[view, :, seen[1], seen[2]]
        own = own * (1 - 0.5 * strength)[:, None] + strength[:, None] * bright * texture
        color[view, :, seen[1], seen[2]] = own
        return color

    def _albedo(self, surface: Surface, depth: Tensor, look: Tensor) -> Tensor:
        x = self._shots.x
        pixel = ((x[:, -1] - x[:, 0]).abs() / (x.shape[1] - 1))[:, None, None]
        footprint = depth * surface.ray_length * pixel / torch.sqrt(surface.facing)
        u, v = surface.u_m, surface.v_m
        texture = self._bank.lookup(look[..., 0].long(), u, v, footprint, look[..., 1])
        stain = self._bank.lookup(look[..., 6].long(), u, v, footprint, _STAIN_SCALE)[..., 0]
        contrast = look[..., 5]
        wear = look[..., 7] * (stain - 1.0) + 1.0
        modulation = ((1.0 - contrast) * wear)[..., None] + (contrast * wear)[..., None] * texture
        return (look[..., 2:5] * modulation).clamp_min(0.004).movedim(-1, 1)

    def _key_light(self, surface: Surface) -> tuple[Tensor, Tensor]:
        """Return diffuse and mirrored strength of the key light, shadows included."""
        light_m = self._shots.looks.light_m
        x, y, z = (light_m[:, k, None, None] - surface.position[k] for k in range(3))
        to_light = (x, y, z)
        squared = dot(to_light, to_light)
        cosine = (dot(surface.normal, to_light) / torch.sqrt(squared)).clamp_min(0.0)
        reach = self._shots.looks.reach_m[:, None, None]
        fall = torch.where(reach > 0, 2.0 * reach**2 / (reach**2 + squared), 1.0)
        strength = self._visibility(surface.position, cosine) * fall
        strength = strength * self._through_openings(surface.position, to_light)
        mirrored = (cosine * surface.facing * 1.05 - 0.05).clamp(0.0, 1.0) ** 16
        return cosine * strength, mirrored * strength

    def _visibility(self, position: Vector, cosine: Tensor) -> Tensor:
        """Return 1 in light, 0 in shadow, between at the edge of a shadow."""
        scenes, scene, size = self._shots.scenes, self._scene, SHADOW_PX
        tangent = scenes.shadow_tangent[scene]
        column, row, depth = in_picture(scenes.shadow_pose[scene], tangent, size, position)
        texel_m = depth.abs() * (2 * tangent / size).float()[:, None, None]
        limit = depth - (_SHADOW_BIAS_M + texel_m / cosine.clamp_min(0.2))
        inside = (depth > 0) & (column > 0) & (row > 0) & (column < size - 1) & (row < size - 1)
        column, row = torch.where(inside, column, 0.0), torch.where(inside, row, 0.0)
        corner, right, down = corners_of(column, row, scene, size)
        values = self.views.shadow_m.flatten()
        lit = torch.zeros_like(depth)
        for step, weight in (
            (0, (1 - right) * (1 - down)),
            (1, right * (1 - down)),
            (size, (1 - right) * down),
            (size + 1, right * down),
        ):
            lit = lit + weight * (values[corner + step] >= limit)
        return torch.where(inside, lit, 1.0) * self._passed(column, row)

    def _passed(self, column: Tensor, row: Tensor) -> Tensor:
        """Return the share of the key light that its pattern lets pass, at places in its picture.

        Outside the picture, where places are (0, 0), the share of the corner, as in world/.
        """
        looks, size = self._shots.looks, SHADOW_PX
        corner, right, down = corners_of(column, row, looks.pattern, size)
        values = looks.patterns.flatten()
        upper = torch.lerp(values[corner].float(), values[corner + 1].float(), right)
        corner = corner + size
        lower = torch.lerp(values[corner].float(), values[corner + 1].float(), right)
        return torch.lerp(upper, lower, down)

    def _through_openings(self, position: Vector, to_light: Vector) -> Tensor:
        """Return 1 where the way to the sun leaves through a window or nothing stops it."""
        openings = self._shots.looks.openings_m  # (B, N, 2, 3)
        unbounded = ~self._shots.looks.has_openings[:, None, None]
        lit = unbounded.expand_as(position[0])
        for number in range(openings.shape[1]):
            low, high = openings[:, number, 0], openings[:, number, 1]
            normal = (high - low).argmin(dim=1)[:, None, None]
            ways = [(low[:, k, None, None] - position[k]) / to_light[k] for k in range(3)]
            way = torch.where(normal == 0, ways[0], torch.where(normal == 1, ways[1], ways[2]))
            through = way > -1e-3
            for k in range(3):
                crossing = position[k] + way * to_light[k]
                between = (crossing > low[:, k, None, None]) & (crossing < high[:, k, None, None])
                through = through & (between | (normal == k))
            lit = lit | through
        return lit.float()

    def _openness(self, surface: Surface) -> Tensor:
        """Return how much of the surroundings a point sees: less in corners and under things."""
        x, y = (surface.position[k] + _BESIDE_M * surface.normal[k] for k in range(2))
        z = surface.position[2]
        cover = self._cover((x, y, z)).clamp_min(1.0)
        lift = torch.exp(COVER_STEEPNESS_PER_M * (z + 0.04).clamp_max(5.2))
        open_sky = (lift / cover).clamp(0.4, 1.0)
        scenes, scene = self._shots.scenes, self._scene
        for k in range(3):
            beside = surface.shell_axis != k
            for planes, sign in ((scenes.shell_low_m, 1.0), (scenes.shell_high_m, -1.0)):
                plane = planes[scene, k].float()[:, None, None]
                gap = (surface.position[k] - plane) * (sign / 0.3)
                dim = torch.where(plane.isfinite(), 0.35 / (1.0 + gap * gap), 0.0)
                open_sky = open_sky * (1.0 - dim * beside)
        return open_sky

    def _cover(self, position: Vector) -> Tensor:
        """Return the cover view at points, 1 beyond its edge."""
        scenes, scene, size = self._shots.scenes, self._scene, COVER_PX
        pose, tangent = scenes.cover_pose[scene], scenes.cover_tangent[scene]
        column, row, _ = in_picture(pose, tangent, size, position)
        inside = (column >= 0) & (row >= 0) & (column <= size - 1) & (row <= size - 1)
        column, row = torch.where(inside, column, 0.0), torch.where(inside, row, 0.0)
        corner, right, down = corners_of(column, row, scene, size)
        values = self.views.cover.flatten()
        upper = torch.lerp(values[corner], values[corner + 1], right)
        lower = torch.lerp(values[corner + size], values[corner + size + 1], right)
        return torch.where(inside, torch.lerp(upper, lower, down), 1.0)

    def _sky(self, ways: Vector) -> Tensor:
        x, y, z = ways
        height = (z / torch.sqrt(dot(ways, ways))).clamp(0.0, 1.0)
        blend = (height * 2.0).clamp_max(1.0)[:, None]
        color = self._horizon * (1 - blend) + self._zenith * blend
        far = 0.4 / (height + 0.12)
        number = self._bank.first_cloud + (self._clouds * 97).long() % 6
        number = number.expand_as(x)
        cloud = self._bank.lookup(number, x * far, y * far, far * 0.01, 1.0)[..., 0]
        return (color * (1 + self._clouds * (cloud - 1))[:, None]).clamp_min(0.0)
