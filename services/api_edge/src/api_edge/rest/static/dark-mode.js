// Swagger UI has a dark style, which the class of the root element switches on: here as the system prefers.
const dark = matchMedia("(prefers-color-scheme: dark)");

function follow() {
  document.documentElement.classList.toggle("dark-mode", dark.matches);
  document.documentElement.style.colorScheme = dark.matches ? "dark" : "light";
}

dark.addEventListener("change", follow);
follow();
