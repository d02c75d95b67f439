// Reading needs none of this: it closes the menu and full-size figures, and marks where one is.
const menu = document.querySelector(".menu");
menu.addEventListener("click", (event) => {
  if (event.target.closest("a")) menu.open = false;
});
document.addEventListener("keydown", (event) => {
  const sheet = document.querySelector(".sheet:target");
  if (event.key === "Escape" && sheet) sheet.querySelector(".close").click();
});
const links = new Map();
for (const link of document.querySelectorAll(".side a")) links.set(link.hash.slice(1), link);
const seen = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      const here = links.get(entry.target.id);
      here.setAttribute("aria-current", "location");
      here.scrollIntoView({ block: "nearest" });
    }
  },
  { rootMargin: "-10% 0px -80% 0px" },
);
for (const id of links.keys()) seen.observe(document.getElementById(id));
