// A class of the root element enables Swagger UI's dark style. This sets it if the system prefers dark.
const dark = matchMedia("(prefers-color-scheme: dark)");

function follow() {
  document.documentElement.classList.toggle("dark-mode", dark.matches);
  document.documentElement.style.colorScheme = dark.matches ? "dark" : "light";
}

dark.addEventListener("change", follow);
follow();
